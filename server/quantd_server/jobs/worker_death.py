"""What to make of a worker that ended without a word: what to say, and whether to try again."""

from __future__ import annotations

import signal

from quantd_server.errors import Finding, FindingKind, Severity

MAX_FUTILE_ATTEMPTS = 3
"""Workers in a row that are started for one job and get no further, whatever ends them."""

MAX_FUTILE_KILLED_ATTEMPTS = 2
"""The same where signal 9 ends them: memory that did not suffice twice will not the third time."""

MAX_ATTEMPTS = 100
"""Workers that are started for one job, however far they get: each of them may take the server or
other programs along, and by then somebody should have a look.
"""

STOPPED = 2
"""Exit status of a worker that was asked to stop; if not by us, then by what stops services."""


def fault(reason: str, message: str, remedy: str, kind: FindingKind) -> Finding:
    """What a job fails of that is no fault of the request."""
    return Finding(
        severity=Severity.ERROR, field="", reason=reason, message=message, remedy=remedy, kind=kind
    )


def cause_of_death(returncode: int | None, *, killed_for_memory: bool) -> Finding:
    """Why it ended. ``killed_for_memory``: the kernel says that it killed for lack of memory."""
    if returncode == -signal.SIGKILL and killed_for_memory:
        return fault(
            "KILLED_FOR_MEMORY",
            "the kernel killed the worker because memory ran out",
            "compare Plan.peak_memory_bytes with the memory that is free, use fewer threads, run "
            "fewer jobs at once, or raise the memory limit of the server's control group",
            "exhausted",
        )
    if returncode == -signal.SIGKILL:
        return fault(
            "WORKER_KILLED",
            "the worker was killed by signal 9, most likely because memory ran out",
            "compare Plan.peak_memory_bytes with the memory that is free, use fewer threads, or "
            "free some memory",
            "exhausted",
        )
    what = f"signal {-returncode}" if returncode and returncode < 0 else f"status {returncode}"
    return fault(
        "WORKER_DIED",
        f"the worker ended with {what} before the job was done",
        "look up the job in the server's log",
        "internal",
    )


def may_retry(returncode: int | None, *, futile: int, attempts: int) -> bool:
    """Whether a job whose worker number ``attempts`` ended so is worth another one.

    ``futile``: how many of the last workers got no further than those before, this one included.
    A worker that ends by itself, with a status, would do so again.
    """
    if returncode is None or (returncode >= 0 and returncode != STOPPED):
        return False
    killed = returncode == -signal.SIGKILL
    most = MAX_FUTILE_KILLED_ATTEMPTS if killed else MAX_FUTILE_ATTEMPTS
    return futile < most and attempts < MAX_ATTEMPTS


def retried(why: str, attempt: int) -> Finding:
    """The warning that a job is begun again."""
    return Finding(
        severity=Severity.WARNING,
        field="",
        reason="JOB_RETRIED",
        message=f"{why}; the job is begun again, attempt {attempt}",
        remedy="nothing has to be done; if it happens again, look up the job in the server's log: "
        f"after {MAX_FUTILE_ATTEMPTS} attempts that get no further it is given up",
        kind="unavailable",
    )


def too_many_attempts(*, futile: int, attempts: int) -> Finding | None:
    """Why a job fails that may be what takes the server along; None while it may not be."""
    if futile < MAX_FUTILE_ATTEMPTS and attempts < MAX_ATTEMPTS:
        return None
    progress = f"the last {futile} got no further, and " if futile >= MAX_FUTILE_ATTEMPTS else ""
    return fault(
        "TOO_MANY_ATTEMPTS",
        f"{attempts} workers were started for the job, {progress}the server ended under the last "
        "one",
        "find out from the system's log what ended the server: lack of memory, for one; then "
        "quantize again",
        "unavailable",
    )
