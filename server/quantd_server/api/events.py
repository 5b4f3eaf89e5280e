"""A job's events as messages of a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator

from quantd import v1
from quantd_server.api.error_codec import StatusError, status_of
from quantd_server.api.translation import to_message
from quantd_server.errors import QuantdError
from quantd_server.jobs.service import JobService


async def events_after(
    jobs: JobService, name: str, after_sequence: int
) -> AsyncIterator[v1.JobEvent]:
    """The events of ``JobService.watch``; ending the iteration ends the watch, never the job."""
    events = jobs.watch(name, after_sequence)
    try:
        async for event in events:
            yield to_message(event, v1.JobEvent)
    except QuantdError as error:
        if error.reason != "SEQUENCE_OUT_OF_RANGE":
            raise
        last = str(jobs.get(name).last_sequence)
        raise StatusError(status_of([error.finding], {"last_sequence": last})) from None
    finally:
        await events.aclose()  # type: ignore[attr-defined] # it is an async generator
