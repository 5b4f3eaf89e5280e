"""The jobs that wait, in the order in which they will run: callers take turns.

A caller who submits a thousand jobs is not ahead of the others for that: the first job of each
waits for the first jobs of those who came before, not for all their jobs. Whose last turn is
longest ago comes first; jobs of one caller run in the order in which they came. Where callers have
no names, that is the order for all.
"""

from __future__ import annotations

from collections import deque

from quantd_server.jobs.record import JobRecord


class JobQueue:
    """Jobs that are QUEUED."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[JobRecord]] = {}
        """By owner; owners in the order in which they came to wait, none without a job."""
        self._turns: dict[str, int] = {}
        """When each owner had the last turn."""
        self._turn = 0
        self._places: dict[str, int] | None = None
        """By name of the job; None when somebody has come or gone since."""

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __contains__(self, record: JobRecord) -> bool:
        return record in self._waiting.get(record.job.owner, ())

    def append(self, record: JobRecord) -> None:
        """The last one of its owner."""
        self._of(record).append(record)

    def append_first(self, record: JobRecord) -> None:
        """The first one of its owner."""
        self._of(record).appendleft(record)

    def remove(self, record: JobRecord) -> None:
        """Raises ValueError when the job does not wait."""
        self._of(record).remove(record)
        if not self._waiting[record.job.owner]:
            del self._waiting[record.job.owner]

    def first(self) -> JobRecord | None:
        """The job that runs next."""
        owners = self._owners()
        return self._waiting[owners[0]][0] if owners else None

    def take_first(self) -> None:
        """Let it run."""
        record = self.first()
        assert record is not None
        self.remove(record)
        self._turn += 1
        self._turns[record.job.owner] = self._turn

    def place(self, record: JobRecord) -> int | None:
        """How many jobs run before this one; None when it does not wait."""
        if self._places is None:
            self._places = {job.job.name: place for place, job in enumerate(self._in_order())}
        return self._places.get(record.job.name)

    def _of(self, record: JobRecord) -> deque[JobRecord]:
        self._places = None
        return self._waiting.setdefault(record.job.owner, deque())

    def _owners(self) -> list[str]:
        return sorted(self._waiting, key=lambda owner: self._turns.get(owner, 0))

    def _in_order(self) -> list[JobRecord]:
        lines = [self._waiting[owner] for owner in self._owners()]
        rounds = max(map(len, lines), default=0)
        return [line[number] for number in range(rounds) for line in lines if number < len(line)]
