"""A job as the server holds it: its state, its log, and the one place where both change."""

from __future__ import annotations

import time

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
from quantd_server.engine.specification import QuantizationSpec
from quantd_server.errors import Finding
from quantd_server.jobs.event_log import EventLog
from quantd_server.jobs.job import Heartbeat, Job, JobEvent, JobState
from quantd_server.jobs.worker_process import WorkerProcess

MAX_FINDINGS = 64
"""Findings that a job carries; every one of them is in the log as well."""


class JobRecord:
    """A job, its event log and its worker.

    Every change goes through ``update`` or ``apply``, which keep the log and the job in step: the
    job's ``last_sequence`` is that of the event which tells of its newest change.
    """

    def __init__(
        self,
        job: Job,
        *,
        requested: QuantizationSpec,
        source_path: str,
        output_path: str,
        paths: dict[str, str],
        source_fingerprint: str,
        max_events: int,
    ) -> None:
        self.job = job
        self.requested = requested
        """The spec as the caller sent it, to tell a repetition from another request."""
        self.source_path = source_path
        self.output_path = output_path
        self.paths = paths
        self.source_fingerprint = source_fingerprint
        self.log = EventLog(max_events)
        self.worker: WorkerProcess | None = None
        self.failure: Finding | None = None
        """What the worker said it failed of."""
        self.stop_cause: Finding | None = None
        """Why the job was asked to stop."""
        self.pulse = 0
        """Grows with every sign of life that is not an event."""
        self.update(state="QUEUED")

    def update(self, *, state: JobState, **changes: object) -> None:
        """Change the state and whatever goes with it, and log a snapshot."""
        sequence = self.log.last_sequence + 1
        self.job = msgspec.structs.replace(self.job, state=state, last_sequence=sequence, **changes)
        self.log.append(JobEvent(sequence=sequence, time=time.time(), snapshot=self.job))

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
                if len(self.job.findings) < MAX_FINDINGS:
                    self._change(findings=(*self.job.findings, finding))
                self._log(warning=finding)
            case ProgressEvent(progress=progress):
                self._change(progress=progress)
                self.pulse += 1
                self.log.wake()
            case QuantizationResult():
                self._change(
                    result=msgspec.structs.replace(event, output_uri=self.job.spec.output_uri)
                )
            case FailureEvent(finding=finding):
                self.failure = finding

    def _change(self, **changes: object) -> None:
        self.job = msgspec.structs.replace(self.job, **changes)

    def _log(self, **what: object) -> None:
        sequence = self.log.last_sequence + 1
        self._change(last_sequence=sequence)
        self.log.append(JobEvent(sequence=sequence, time=time.time(), **what))  # type: ignore[arg-type]

    def snapshot(self) -> JobEvent:
        """The job as an event that stands for everything up to now; not logged."""
        return JobEvent(sequence=self.log.last_sequence, time=time.time(), snapshot=self.job)

    def heartbeat(self, sequence: int) -> JobEvent:
        """A sign of life after the event ``sequence``; not logged."""
        progress: Progress = self.job.progress
        return JobEvent(sequence=sequence, time=time.time(), heartbeat=Heartbeat(progress=progress))
