"""How long until a full queue has room again, as far as a server can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from quantd_server.jobs.job import Job
from quantd_server.planning.report import Plan

LEAST, MOST = 1.0, 600.0
"""What is told, in seconds: nobody asks in a loop, nor misses a job that is cancelled for long."""

OVERDUE = 0.1
"""A job that takes longer than was planned is given another tenth of what it has taken."""


def time_to_a_place(running: Iterable[Job], now: float, estimate: Callable[[Plan], Plan]) -> float:
    """Seconds until the first of the running jobs ends, whose place one that waits takes then.

    ``estimate`` gives a plan its duration, as ``FinishedJobs.estimate`` does.
    """
    ends = (_remaining(job, now, estimate(job.plan).estimated_duration) for job in running)
    return min(MOST, max(LEAST, min(ends, default=LEAST)))


def _remaining(job: Job, now: float, planned: float | None) -> float:
    """What the worker observes; else what was planned; else as long again as it has taken, which
    is right within a factor of two for half of all moments at which one may ask.
    """
    elapsed = max(0.0, now - job.start_time) if job.start_time is not None else 0.0
    if job.progress.remaining is not None:
        return job.progress.remaining
    if planned is not None:
        return max(planned - elapsed, OVERDUE * elapsed)
    return elapsed
