"""Pauses between attempts to attach again."""

from __future__ import annotations

import grpc
import pytest

from quantd import Reconnect, UnavailableError, v1
from quantd._errors import StatusDetails
from quantd._follower import JobFollower


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def lost(retry_after=None):
    details = StatusDetails(grpc.StatusCode.UNAVAILABLE, "gone", retry_after=retry_after)
    return UnavailableError(details)


def test_pauses_double_up_to_the_longest_and_are_shortened_by_half_at_most():
    follower = JobFollower(Reconnect(initial_delay=1, max_delay=8, timeout=1e9))
    for full in (1, 2, 4, 8, 8, 8):
        assert full / 2 <= follower.delay_after(lost()) <= full


def test_pauses_differ_between_clients():
    delays = {JobFollower(Reconnect()).delay_after(lost()) for _ in range(20)}
    assert len(delays) > 1


def test_an_event_starts_the_count_again():
    clock = Clock()
    follower = JobFollower(Reconnect(initial_delay=1, max_delay=64, timeout=100), clock=clock)
    for _ in range(5):
        clock.now += follower.delay_after(lost())
    follower.accept(v1.JobEvent(sequence=1, stage=v1.StageEvent()))
    clock.now += 1000
    assert follower.delay_after(lost()) <= 1


def test_it_gives_up_with_the_error_after_a_silence():
    clock = Clock()
    follower = JobFollower(Reconnect(timeout=10), clock=clock)
    error = lost()

    def wait_for_ever():
        while True:
            clock.now += follower.delay_after(error)

    with pytest.raises(UnavailableError) as caught:
        wait_for_ever()
    assert caught.value is error
    assert clock.now < 10


def test_the_server_may_ask_for_a_longer_pause():
    follower = JobFollower(Reconnect(initial_delay=0.1))
    assert follower.delay_after(lost(retry_after=3.0)) == 3.0


@pytest.mark.parametrize(("seen", "is_over"), [(2, False), (3, True), (4, False)])
def test_a_finished_job_is_over_when_its_last_event_was_seen(seen, is_over):
    """Whoever saw more than there is has the wrong number, and the server says so."""
    follower = JobFollower(Reconnect(), last_sequence=seen)
    follower.see(v1.Job(state="JOB_STATE_SUCCEEDED", last_sequence=3))
    assert follower.is_over() is is_over
