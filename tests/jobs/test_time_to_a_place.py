"""The delay that a full queue asks for."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.api.servers import PLAN, SPEC

from quantd_server.engine.events import Progress
from quantd_server.errors import QuantdError
from quantd_server.jobs.job import Job
from quantd_server.jobs.time_to_a_place import time_to_a_place

seconds = st.floats(0, 1e7)


def job(ago: float, *, remaining: float | None = None, planned: float | None = None) -> Job:
    """A job that runs since ``ago`` seconds before 1000."""
    return Job(
        name="jobs/a",
        spec=SPEC,
        plan=msgspec.structs.replace(PLAN, estimated_duration=planned),
        progress=Progress(remaining=remaining),
        create_time=0.0,
        start_time=1000.0 - ago,
        state="RUNNING",
    )


def delay(*jobs: Job) -> float:
    return time_to_a_place(jobs, 1000.0, lambda plan: plan)


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        (job(100, remaining=42.0, planned=7.0), 42.0),  # what is seen comes before what was planned
        (job(100, planned=160.0), 60.0),
        (job(100, planned=90.0), 10.0),
        (job(100), 100.0),
        (job(0), 1.0),
        (job(0, remaining=1e6), 600.0),
    ],
)
def test_the_delay_of_one_job(running, expected):
    assert delay(running) == pytest.approx(expected)


def test_the_first_to_end_makes_room():
    assert delay(job(10, remaining=50.0), job(10, remaining=20.0), job(30)) == 20.0
    assert delay() == 1.0


@given(
    st.lists(st.builds(job, seconds, remaining=st.none() | seconds, planned=st.none() | seconds))
)
def test_it_stays_in_its_bounds(running):
    assert 1 <= delay(*running) <= 600


async def test_there_is_room_after_the_delay(make_harness):
    """A real job whose pace is known: the delay is about what is left of it."""
    harness = make_harness(max_queued=1)
    running = await harness.submit("a", slow=True)
    waiting = await harness.submit("b")
    async for _ in harness.service.watch(running.name, 0):
        if harness.service.get(running.name).progress.fraction > 0.2:
            break
    with pytest.raises(QuantdError) as caught:
        await harness.submit("c")
    asked = time.monotonic()
    await asyncio.sleep(caught.value.retry_delay)
    while harness.service.get(waiting.name).state == "QUEUED":  # noqa: ASYNC110 - nothing to wait for
        await asyncio.sleep(0.05)
    # A busy machine changes its pace, but not tenfold.
    assert time.monotonic() - asked < 10 * caught.value.retry_delay
    await harness.submit("c")
