"""A job and its events; field names are those of the spec."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from quantd_server.engine.events import Progress, QuantizationResult, StageEvent, TensorEvent
from quantd_server.engine.specification import QuantizationSpec
from quantd_server.errors import Finding
from quantd_server.planning.report import Plan

JobState = Literal["QUEUED", "RUNNING", "CANCELLING", "SUCCEEDED", "FAILED", "CANCELLED"]
JOB_STATES: tuple[JobState, ...] = get_args(JobState)
FINAL_STATES: frozenset[str] = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A request to quantize, and what became of it. Times are seconds since 1970."""

    name: str
    request_id: str = ""
    owner: str = ""
    """Name of the caller who made it; empty where callers have no names."""
    spec: QuantizationSpec
    labels: dict[str, str] = {}
    state: JobState = "QUEUED"
    progress: Progress = Progress()
    plan: Plan
    findings: tuple[Finding, ...] = ()
    queue_position: int = 0
    create_time: float
    start_time: float | None = None
    end_time: float | None = None
    result: QuantizationResult | None = None
    error: Finding | None = None
    """Why it failed or who cancelled it; the edge makes a `google.rpc.Status` of it."""
    last_sequence: int = 0

    @property
    def finished(self) -> bool:
        return self.state in FINAL_STATES


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """The call that made a job, as the log and traces know it."""

    request_id: str = ""
    """Of the call; not ``Job.request_id``, which stays the same when a call is repeated."""
    traceparent: str = ""
    """Its trace and span, in W3C's form; empty where there is none."""

    @property
    def trace_id(self) -> str:
        return self.traceparent[3:35]


UNKNOWN_ORIGIN = Origin()


class StoredJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job and what a server needs to go on with it; the form in which it is stored."""

    job: Job
    requested: QuantizationSpec
    """The spec as the caller sent it, to tell a repetition from another request."""
    source_path: str
    output_path: str
    paths: dict[str, str]
    source_fingerprint: str
    attempts: int = 0
    """How often a worker was started for it, but for those that the server stopped in order."""
    futile_attempts: int = 0
    """Of the last of them, how many were killed before they got further than those before."""
    furthest: int = 0
    """How far the attempts got, by ``recorded_steps``."""
    origin: Origin = UNKNOWN_ORIGIN
    stop_cause: Finding | None = None
    """Why the job was asked to stop."""


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing new; the job is alive."""

    progress: Progress


class JobEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a job's log. Exactly one of the fields after ``time`` is set."""

    sequence: int
    time: float
    snapshot: Job | None = None
    stage: StageEvent | None = None
    tensor: TensorEvent | None = None
    warning: Finding | None = None
    heartbeat: Heartbeat | None = None


class JobFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs a listing includes; what is empty matches everything."""

    states: frozenset[str] = frozenset()
    methods: frozenset[str] = frozenset()
    """Field names of ``MethodConfig``."""
    labels: dict[str, str] = {}
    created_from: float | None = None
    created_until: float | None = None

    def matches(self, job: Job) -> bool:
        return (
            (not self.states or job.state in self.states)
            and (not self.methods or job.spec.method.name in self.methods)
            and all(job.labels.get(key) == value for key, value in self.labels.items())
            and (self.created_from is None or job.create_time >= self.created_from)
            and (self.created_until is None or job.create_time < self.created_until)
        )
