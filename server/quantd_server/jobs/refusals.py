"""What a job service refuses, and what to do then."""

from __future__ import annotations

from quantd_server.errors import QuantdError, quoted


def job_not_found(name: str) -> QuantdError:
    """A name without a job, or with one that the caller may not know of."""
    return QuantdError(
        reason="JOB_NOT_FOUND",
        field="name",
        kind="not_found",
        message=f"there is no {quoted(name)}",
        remedy="list the jobs; finished ones are kept for a limited time, and none outlive the "
        "server",
    )
