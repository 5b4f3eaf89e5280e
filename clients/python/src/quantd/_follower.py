"""What a client knows of a job it follows. No I/O: the blocking and the async stream share it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from quantd import v1
from quantd._errors import JobCancelled, JobFailed, QuantdError, unavailable

FINAL_STATES = frozenset(
    {v1.JobState.JOB_STATE_SUCCEEDED, v1.JobState.JOB_STATE_FAILED, v1.JobState.JOB_STATE_CANCELLED}
)


@dataclass(frozen=True, kw_only=True)
class Reconnect:
    """How a job stream behaves when it loses its connection.

    Pauses grow from `initial_delay` to `max_delay` by doubling; each is shortened by a random part,
    up to half of it, so that clients don't all come back at once.
    """

    initial_delay: float = 0.2
    """First pause in seconds."""
    max_delay: float = 10.0
    """Longest pause in seconds."""
    timeout: float = 120.0
    """Seconds without any event after which the stream gives up; 0 never reconnects."""


class JobFollower:
    """Keeps a job up to date from its events, and decides what is new, lost, and over."""

    def __init__(
        self,
        reconnect: Reconnect,
        *,
        last_sequence: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.job = v1.Job()
        self.last_sequence = last_sequence
        self._finished = False
        self._reconnect = reconnect
        self._clock = clock
        self._attempts = 0
        self._lost_at = 0.0

    def is_over(self) -> bool:
        """Whether the last event was seen."""
        return self._finished

    def accept(self, event: v1.JobEvent) -> bool:
        """Takes an event in; says whether it is new."""
        kind = event.WhichOneof("event")
        # A heartbeat is not stored and carries the sequence of the event before it.
        if kind != "heartbeat" and event.sequence <= self.last_sequence:
            return False
        self._attempts = 0
        self.last_sequence = max(self.last_sequence, event.sequence)
        if kind == "snapshot":
            self.job.CopyFrom(event.snapshot)
            self._finished = self.job.state in FINAL_STATES
        elif kind == "stage":
            self.job.progress.stage = event.stage.stage
        elif kind == "tensor":
            self.job.progress.CopyFrom(event.tensor.progress)
        elif kind == "heartbeat":
            self.job.progress.CopyFrom(event.heartbeat.progress)
        elif kind == "warning":
            self.job.findings.append(event.warning)
        self.job.last_sequence = self.last_sequence
        return True

    def see(self, job: v1.Job) -> None:
        """Takes in the job as `GetJob` returns it.

        It is over if it is in a final state and its last event was seen: a stream that asks for
        what comes after that one has nothing to say and simply ends.
        """
        self.job.CopyFrom(job)
        self._finished = job.state in FINAL_STATES and job.last_sequence == self.last_sequence

    def delay_after(self, error: QuantdError | None) -> float:
        """Seconds to wait before attaching again.

        Args:
            error: Why the stream broke; None when it just ended before the job did.

        Raises:
            QuantdError: `error`, when it is the server's answer, or after too long a silence.
        """
        error = error or unavailable("the stream ended before the job did")
        if not error.connection_lost:
            raise error
        now = self._clock()
        if self._attempts == 0:
            self._lost_at = now
        pause = min(
            self._reconnect.max_delay,
            self._reconnect.initial_delay * 2.0 ** min(self._attempts, 32),
        )
        delay = max(pause * random.uniform(0.5, 1.0), error.retry_after or 0.0)
        if now + delay - self._lost_at >= self._reconnect.timeout:
            raise error
        self._attempts += 1
        return delay

    def result(self) -> v1.QuantizationResult:
        """The result of a job that is over.

        Raises:
            JobFailed: It failed.
            JobCancelled: It was cancelled.
        """
        if self.job.state == v1.JobState.JOB_STATE_CANCELLED:
            raise JobCancelled(self.job)
        if self.job.state != v1.JobState.JOB_STATE_SUCCEEDED:
            raise JobFailed(self.job)
        return self.job.result
