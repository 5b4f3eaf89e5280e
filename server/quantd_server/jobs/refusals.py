"""What a job service refuses, and what to do then."""

from __future__ import annotations

from quantd_server.errors import QuantdError, quoted
from quantd_server.jobs.job import Job


def request_id_reused(request_id: str, job: Job) -> QuantdError:
    """A ``request_id`` that came with another request before."""
    return QuantdError(
        reason="REQUEST_ID_REUSED",
        field="request_id",
        kind="exists",
        message=f"request_id {request_id} was used for another request, which made {job.name}",
        remedy="use a new UUID for a new request",
    )


def queue_full(waiting: int, limit: int, retry_delay: float) -> QuantdError:
    """No place for another job; there may be one after ``retry_delay`` seconds."""
    return QuantdError(
        reason="QUEUE_FULL",
        kind="exhausted",
        message=f"{waiting} jobs are waiting already; at most {limit}",
        remedy="try again after the delay in RetryInfo",
        retry_delay=retry_delay,
    )


def output_in_use(job: Job) -> QuantdError:
    """An output that ``job`` is going to write."""
    return QuantdError(
        reason="OUTPUT_IN_USE",
        field="spec.output_uri",
        kind="precondition",
        message=f"{job.name} is going to write the same output",
        remedy="choose another output_uri, or wait for that job",
    )


def job_not_found(name: str) -> QuantdError:
    """A name without a job, or with one that the caller may not know of."""
    return QuantdError(
        reason="JOB_NOT_FOUND",
        field="name",
        kind="not_found",
        message=f"there is no {quoted(name)}",
        remedy="list the jobs; finished ones are kept for a limited time, and beyond the end of "
        "the server only in a state folder",
    )


def job_not_finished(job: Job) -> QuantdError:
    """A job that has to end first."""
    return QuantdError(
        reason="JOB_NOT_FINISHED",
        field="name",
        kind="precondition",
        message=f"{job.name} is {job.state}; only finished jobs can be deleted",
        remedy="cancel it first",
    )


def sequence_out_of_range(after_sequence: int, last_sequence: int) -> QuantdError:
    """A place in a log that is not there yet."""
    return QuantdError(
        reason="SEQUENCE_OUT_OF_RANGE",
        field="after_sequence",
        kind="out_of_range",
        message=f"got {after_sequence}, but the job's last event is {last_sequence}",
        remedy=f"watch from {last_sequence} at most",
    )


def shutting_down() -> QuantdError:
    """Nothing can be begun any more."""
    return QuantdError(
        reason="SHUTTING_DOWN",
        kind="unavailable",
        message="the server is stopping",
        remedy="try again with backoff",
    )
