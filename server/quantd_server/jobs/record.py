"""A job as the server holds it: its state, its log, and the one place where both change."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from quantd_server.engine.events import (
    FailureEvent,
    Progress,
    ProgressEvent,
    QuantizationResult,
    StageEvent,
    TensorEvent,
    WarningEvent,
    WorkerEvent,
)
from quantd_server.errors import Finding
from quantd_server.jobs.event_log import EventLog
from quantd_server.jobs.job import Heartbeat, Job, JobEvent, JobState, StoredJob
from quantd_server.jobs.store import Change
from quantd_server.jobs.worker_process import WorkerProcess

MAX_FINDINGS = 64
"""Findings that a job carries; every one of them is in the log as well."""

Write = Callable[[Change | None, Callable[[], None]], None]
"""``Journal.write``."""


class JobRecord:
    """A job, its event log and its worker.

    Every change goes through ``update``, ``warn`` or ``apply``, which keep the log and the job in
    step: the job's ``last_sequence`` is that of the event which tells of its newest change.
    ``job`` is how the job is; ``visible`` and ``log`` are what may be told of it, since it is
    durable. They follow within a commit of the store.
    """

    def __init__(self, stored: StoredJob, log: EventLog, write: Write) -> None:
        self._stored = stored
        self._write = write
        self.log = log
        self.visible = stored.job
        self.worker: WorkerProcess | None = None
        self.failure: Finding | None = None
        """What the worker said it failed of."""
        self.pulse = 0
        """Grows with every sign of life that is not an event."""

    @property
    def stored(self) -> StoredJob:
        """All that is stored of the job, as it is now."""
        return self._stored

    @property
    def job(self) -> Job:
        return self._stored.job

    @property
    def log_fields(self) -> dict[str, str | None]:
        """What every line of the log about the job has."""
        origin = self.stored.origin
        return {
            "job": self.job.name,
            "request_id": origin.request_id or None,
            "trace_id": origin.trace_id or None,
        }

    def note(self, **fields: object) -> None:
        """Change what a server needs to know beside the job; stored with the next change."""
        self._stored = msgspec.structs.replace(self._stored, **fields)

    def update(self, *, state: JobState, **changes: object) -> None:
        """Change the state and whatever goes with it, and log a snapshot."""
        sequence = self.job.last_sequence + 1
        self._change(state=state, last_sequence=sequence, **changes)
        self._save(JobEvent(sequence=sequence, time=time.time(), snapshot=self.job))

    def warn(self, finding: Finding) -> None:
        """Log something to know that does not stop the job."""
        # A job that runs again finds the same things again.
        if len(self.job.findings) < MAX_FINDINGS and finding not in self.job.findings:
            self._change(findings=(*self.job.findings, finding))
        self._log(warning=finding)

    def apply(self, event: WorkerEvent) -> None:
        """Take in what the worker says."""
        match event:
            case StageEvent(stage=stage):
                self._change(progress=msgspec.structs.replace(self.job.progress, stage=stage))
                self._log(stage=event)
            case TensorEvent(progress=progress):
                self._change(progress=progress)
                self._log(tensor=event)
            case WarningEvent(warning=finding):
                self.warn(finding)
            case ProgressEvent(progress=progress):
                self._change(progress=progress)
                self._write(None, lambda: self._pulse(progress))
            case QuantizationResult():
                # Not an event yet, but no longer to be lost.
                self._change(
                    result=msgspec.structs.replace(event, output_uri=self.job.spec.output_uri)
                )
                self._write(Change(name=self.job.name, job=self._stored), lambda: None)
            case FailureEvent(finding=finding):
                self.failure = finding

    def _change(self, **changes: object) -> None:
        self.note(job=msgspec.structs.replace(self.job, **changes))

    def _log(self, **what: object) -> None:
        sequence = self.job.last_sequence + 1
        self._change(last_sequence=sequence)
        self._save(JobEvent(sequence=sequence, time=time.time(), **what))  # type: ignore[arg-type]

    def _save(self, event: JobEvent) -> None:
        job = self.job
        change = Change(name=job.name, job=self._stored, event=event)
        self._write(change, lambda: self._tell(job, event))

    def _tell(self, job: Job, event: JobEvent) -> None:
        self.visible = job
        self.log.append(event)

    def _pulse(self, progress: Progress) -> None:
        self.visible = msgspec.structs.replace(self.visible, progress=progress)
        self.pulse += 1
        self.log.wake()

    def snapshot(self) -> JobEvent:
        """The job as an event that stands for everything up to now; not logged."""
        return JobEvent(sequence=self.log.last_sequence, time=time.time(), snapshot=self.visible)

    def heartbeat(self, sequence: int) -> JobEvent:
        """A sign of life after the event ``sequence``; not logged."""
        heartbeat = Heartbeat(progress=self.visible.progress)
        return JobEvent(sequence=sequence, time=time.time(), heartbeat=heartbeat)
