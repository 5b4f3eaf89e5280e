"""One watcher of one job: what is in the log, then what comes, and signs of life in between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from quantd_server.jobs.job import JobEvent
from quantd_server.jobs.record import JobRecord
from quantd_server.jobs.refusals import shutting_down


async def follow(
    record: JobRecord,
    after_sequence: int,
    heartbeat_interval: float,
    has_stopped: Callable[[], bool],
) -> AsyncIterator[JobEvent]:
    """The job's events after a sequence, live, until its last one.

    Raises QuantdError SHUTTING_DOWN when the server has stopped and the job goes on after it.
    """
    while True:
        changed, pulse = record.log.changed, record.pulse
        events = record.log.after(after_sequence)
        if events is None:
            events = [record.snapshot()]
        for event in events:
            yield event
            after_sequence = event.sequence
        if record.log.last_sequence > after_sequence:
            continue  # more came while the reader was taking those
        if record.visible.finished:
            return
        if has_stopped():
            raise shutting_down()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), heartbeat_interval)
            if record.pulse == pulse:
                continue
        if record.log.last_sequence == after_sequence:
            yield record.heartbeat(after_sequence)
