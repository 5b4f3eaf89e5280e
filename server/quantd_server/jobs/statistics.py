"""What became of jobs since the server started, as plain numbers for whoever watches it."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from quantd_server.engine.events import TensorEvent, WorkerEvent
from quantd_server.jobs.job import Job

SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 12 * 3600.0, 24 * 3600.0)
"""What durations of jobs are sorted by: from a tiny model to a day."""


class Distribution:
    """How many values there were up to each bound."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Of values above the bound before, up to this one; the last is of those above all."""
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class JobStatistics:
    """Counts by method, and by the state that jobs ended in. Nothing in here names a job for ever.

    A byte counts once, however often a worker had to begin again, and whoever did the tensors that
    a worker takes over.
    """

    def __init__(self) -> None:
        self.ended: Counter[tuple[str, str]] = Counter()
        """Jobs, by method and state."""
        self.seconds: dict[tuple[str, str], Distribution] = {}
        """From the start of the last worker to the end, by method and state."""
        self.bytes_read: Counter[str] = Counter()
        """Of sources that were quantized, by method."""
        self.bytes_written: Counter[str] = Counter()
        """Of tensors in outputs, by method."""
        self._counted: dict[str, tuple[int, int]] = {}
        """Bytes and tensors of a job that has not ended, by name."""

    def skip(self, job: Job) -> None:
        """Leave out what a server before had done of the job."""
        self._counted[job.name] = (job.progress.bytes_done, job.progress.tensors_done)

    def add_event(self, job: Job, event: WorkerEvent) -> None:
        """Count what is new in ``job`` by an event of its worker."""
        method, progress = job.spec.method.name, job.progress
        most_bytes, most_tensors = self._counted.get(job.name, (0, 0))
        self.bytes_read[method] += max(0, progress.bytes_done - most_bytes)
        if isinstance(event, TensorEvent) and progress.tensors_done > most_tensors:
            self.bytes_written[method] += event.size_bytes
        self._counted[job.name] = (
            max(most_bytes, progress.bytes_done),
            max(most_tensors, progress.tensors_done),
        )

    def add_end(self, job: Job) -> None:
        """Count a job that has ended."""
        self._counted.pop(job.name, None)
        kind = (job.spec.method.name, job.state)
        self.ended[kind] += 1
        if job.start_time is not None and job.end_time is not None:
            distribution = self.seconds.setdefault(kind, Distribution(SECONDS))
            distribution.add(max(0.0, job.end_time - job.start_time))
