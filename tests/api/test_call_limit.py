"""How often one caller may call."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quantd_server.api import call_limit
from quantd_server.api.call_limit import BURST_SECONDS, CallLimit


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(
    rate=st.floats(0.1, 1000),
    pauses=st.lists(st.floats(0, 2), max_size=200),
)
def test_no_more_than_the_rate_and_one_burst(rate, pauses):
    clock = Clock()
    limit = CallLimit(rate, clock)
    taken = 0
    for pause in pauses:
        clock.now += pause
        taken += limit.take("a")
        assert taken <= max(1.0, BURST_SECONDS * rate) + rate * clock.now + 1e-6


def test_after_a_pause_it_may_go_on_and_others_never_wait():
    clock = Clock()
    limit = CallLimit(2.0, clock)
    assert [limit.take("a") for _ in range(5)] == [True] * 4 + [False]
    assert limit.take("b")
    clock.now = 0.5
    assert [limit.take("a"), limit.take("a")] == [True, False]


def test_callers_of_the_past_are_forgotten(monkeypatch):
    monkeypatch.setattr(call_limit, "MAX_BUCKETS", 10)
    clock = Clock()
    limit = CallLimit(1.0, clock)
    for number in range(100):
        clock.now += 10
        limit.take(str(number))
    assert len(limit._buckets) <= 11
