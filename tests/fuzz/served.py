"""The server in this process: everything that a call goes through but the network.

That is the real interceptor, servicers, planner and job service. Two things differ: planning does
its work in this process and not in one of its own (through the same JSON), and no worker ever
starts, so that jobs stay in the queue. The host is a simulated one.
"""

from __future__ import annotations

import asyncio
import atexit
import base64
import io
import time
from collections import namedtuple
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import grpc
import grpc.aio
import msgspec
from tests import hosts
from tests.api.servers import PLAN, SPEC

from quantd import v1
from quantd_server.api.access import Access
from quantd_server.api.capabilities import Capabilities
from quantd_server.api.interceptor import CODES, OutermostInterceptor
from quantd_server.api.job_servicer import JobServicer
from quantd_server.api.log import Log
from quantd_server.api.quantization_servicer import QuantizationServicer
from quantd_server.api.request_checks import compile_rules
from quantd_server.api.server import OWN_FILES, input_types
from quantd_server.engine.events import Progress, QuantizationResult
from quantd_server.errors import Finding, QuantdError
from quantd_server.host.description import Host
from quantd_server.jobs.job import Job, JobEvent, StoredJob
from quantd_server.jobs.service import JobService
from quantd_server.jobs.store import Change, JobStore
from quantd_server.planning.capability_report import CapabilityReporter, Limits, ServerInfo
from quantd_server.planning.planner_process import Answer, Call, Planner, Refusal, _answer
from quantd_server.planning.roots import Roots
from quantd_server.settings import Settings

HOST = hosts.H100
DEADLINE_SECONDS = 60.0
"""Of the clock, for a call that waits for something; what it computes, ``bounds`` limits."""
MAX_ANSWERS = 3
"""Answers of a stream that a caller reads before it leaves."""
MAX_TRAILER_BYTES = 8192
NEVER = {"INTERNAL", "UNKNOWN"}
EFFECTIVE = {"Quantize", "CancelJob", "DeleteJob"}
"""Methods after which jobs may be others."""
JOB_STATES = ("QUEUED", "SUCCEEDED", "FAILED", "CANCELLED")
JOB_NAMES = tuple(f"jobs/{number:08d}-0000-4000-8000-000000000000" for number in range(4))
"""Jobs that there are before every call, in these states."""
MAX_QUEUED = 4
MAX_EVENTS = 9

HandlerCallDetails = namedtuple("HandlerCallDetails", "method invocation_metadata")  # noqa: PYI024


class PlannerInProcess(Planner):
    """Plans here what a planner process would plan, through the same JSON."""

    async def _call(self, call: Call) -> bytes:
        reply = _answer(msgspec.json.decode(msgspec.json.encode(call), type=Call))
        match reply:
            case Answer():
                return bytes(reply.value)
            case Refusal(finding=finding):
                if finding.reason == "PLANNING_FAILED":
                    raise MemoryError(finding.message)
                raise QuantdError.from_finding(finding)
        raise RuntimeError("planning failed; standard error says how")


class _FixedReporter(CapabilityReporter):
    """Describes the simulated host, and asks no driver."""

    def examine(self, torch: Any, *, packages: bool = False) -> None: ...


@dataclass
class Outcome:
    """What a call ended with."""

    code: str = "OK"
    message: str = ""
    answers: list[bytes] = field(default_factory=list)
    trailers: tuple[tuple[str, Any], ...] = ()

    @property
    def trailer_bytes(self) -> int:
        """As HTTP/2 counts them (RFC 7541, 4.1): 32 bytes for each, and binary ones in base64."""
        size = sum(
            len(key) + 32 + len(base64.b64encode(value) if isinstance(value, bytes) else value)
            for key, value in self.trailers
        )
        return size + 2 * 32 + len("grpc-status") + 2 + len("grpc-message" + quote(self.message))


class _Context:
    """What grpc would give to a handler. The caller leaves after ``MAX_ANSWERS``."""

    def __init__(self) -> None:
        self.outcome = Outcome()
        self.task: asyncio.Task[Any] | None = None
        self._code: Any = None

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def set_trailing_metadata(self, metadata: Any) -> None:
        self.outcome.trailers = tuple(metadata)

    async def abort(self, code: grpc.StatusCode, message: str, metadata: Any = ()) -> None:
        assert CODES[code.value[0]] is code
        self._code = code
        self.outcome.code, self.outcome.message = code.name, message
        self.outcome.trailers = tuple(metadata)
        raise grpc.aio.AbortError

    async def write(self, answer: bytes) -> None:
        self.outcome.answers.append(answer)
        if len(self.outcome.answers) == MAX_ANSWERS and self.task is not None:
            self.task.cancel()

    def done(self) -> bool:
        return False

    def time_remaining(self) -> float | None:
        return None

    def code(self) -> Any:
        return self._code


class _Handlers:
    """Stands where servicers are added to a server."""

    def __init__(self) -> None:
        self.by_path: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None: ...

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self.by_path |= {f"/{service}/{name}": handler for name, handler in handlers.items()}


class Served:
    """A server whose root is ``folder``."""

    def __init__(self, folder: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._stream = io.StringIO()
        self._log = Log(stream=self._stream)
        settings = Settings(source_roots=(folder,), output_roots=(folder,))
        self._interceptor = OutermostInterceptor(
            self._log, Access.of(settings, self._log), input_types()
        )
        self._planner = PlannerInProcess(Roots.of((folder,), (folder,)), _simulated_host)
        self._capabilities = Capabilities(_reporter, self._log, clock=lambda: 0.0)
        self._jobs: JobService | None = None
        self._handlers: dict[str, Any] = {}
        compile_rules(
            method.input_type
            for file in OWN_FILES
            for service in file.services_by_name.values()
            for method in service.methods
        )
        self._loop.run_until_complete(self._capabilities._renew())
        self._loop.run_until_complete(self._begin())
        atexit.register(self._loop.close)

    def call(self, path: str, data: bytes) -> Outcome:
        """One call with the request ``data``, as if it were the first one.

        Raises AssertionError with what the log tells of a fault, TimeoutError without an answer.
        """
        self._stream.seek(0)
        self._stream.truncate()
        outcome = self._loop.run_until_complete(self._call(path, data))
        log = self._stream.getvalue()
        assert outcome.code not in NEVER and '"incident"' not in log, log
        assert outcome.trailer_bytes < MAX_TRAILER_BYTES, f"{outcome.trailer_bytes} of trailers"
        if outcome.code == "OK" and path.rpartition("/")[2] in EFFECTIVE:
            self._loop.run_until_complete(self._begin())
        return outcome

    async def _call(self, path: str, data: bytes) -> Outcome:
        context = _Context()
        context.task = asyncio.create_task(self._handlers[path](_stream(data), context))
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                answer = await context.task
        except asyncio.CancelledError:
            assert len(context.outcome.answers) == MAX_ANSWERS
        except grpc.aio.AbortError:
            assert context.outcome.code != "OK"
        else:
            context.outcome.answers += [answer] if answer is not None else []
        return context.outcome

    async def _begin(self) -> None:
        """Have the jobs that there are before a call."""
        if self._jobs is not None:
            await self._jobs.stop(0)
        store = JobStore(None, max_events=MAX_EVENTS)
        store.commit([_stored(place) for place in range(len(JOB_NAMES))])
        self._jobs = JobService(
            max_running=0,
            max_queued=MAX_QUEUED,
            max_finished=len(JOB_NAMES),
            max_events=MAX_EVENTS,
            heartbeat_interval=0.001,
            threads=1,
            log=self._log,
            store=store,
        )
        await self._jobs.start()
        servicers = _Handlers()
        server: Any = servicers
        v1.add_QuantizationServiceServicer_to_server(
            QuantizationServicer(self._planner, self._jobs, self._capabilities), server
        )
        v1.add_JobServiceServicer_to_server(JobServicer(self._jobs), server)
        for path, handler in servicers.by_path.items():

            async def found(_: Any, handler: Any = handler) -> Any:
                return handler

            details: Any = HandlerCallDetails(path, ())
            wrapped: Any = await self._interceptor.intercept_service(found, details)
            self._handlers[path] = wrapped.stream_unary or wrapped.stream_stream


async def _stream(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _simulated_host(_with_torch: bool) -> Host:  # noqa: FBT001 - the planner's form
    return HOST


def _reporter() -> CapabilityReporter:
    server = ServerInfo(version="1", api_versions=("v1",), instance_id="fuzzed", start_time=0.0)
    numbers = {name: 1 for name in Limits.__struct_fields__ if name != "heartbeat_interval"}
    return _FixedReporter(server, Limits(**numbers, heartbeat_interval=1.0), HOST)


def _stored(place: int) -> Change:
    """A job of before, which has come to one of ``JOB_STATES``."""
    state, name = JOB_STATES[place], JOB_NAMES[place]
    spec = msgspec.structs.replace(SPEC, output_uri=f"/nowhere/{place}")
    job = Job(
        name=name,
        spec=spec,
        plan=PLAN,
        labels={"place": str(place)},
        state=state,  # type: ignore[arg-type]
        create_time=1000.0 + place,
        last_sequence=1,
        progress=Progress(bytes_total=2),
    )
    if state == "SUCCEEDED":
        job = msgspec.structs.replace(job, result=_RESULT, end_time=time.time())
    elif state != "QUEUED":
        fault = Finding(field="", reason="WORKER_DIED", message="it died", remedy="try again")
        job = msgspec.structs.replace(job, error=fault, end_time=time.time())
    stored = StoredJob(
        job=job,
        requested=spec,
        source_path="/nowhere",
        output_path=f"/nowhere/{place}",
        paths={},
        source_fingerprint="",
    )
    event = JobEvent(sequence=1, time=1000.0, snapshot=job)
    return Change(name=name, job=stored, event=event)


_RESULT = QuantizationResult(
    output_uri="/nowhere/1",
    files=(),
    types=(),
    source_bytes=2,
    output_bytes=1,
    bits_per_weight=4.5,
    relative_error=0.1,
    worst_tensor="a",
    worst_relative_error=0.1,
    elapsed=1.0,
    peak_memory_bytes=1,
)
