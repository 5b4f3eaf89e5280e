"""Servers for these tests: in this process, with real or scripted services behind them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RetryInfo
from grpc_status import rpc_status

from quantd_server.api import lifecycle
from quantd_server.api.log import Log
from quantd_server.api.server import BoundServer, Services, build
from quantd_server.engine.specification import QuantizationSpec
from quantd_server.errors import Finding, QuantdError
from quantd_server.jobs.job import Job, JobEvent, JobFilter
from quantd_server.jobs.listing import Page
from quantd_server.methods.configs import GgufConfig, MethodConfig
from quantd_server.planning.report import Plan, PlanReport
from quantd_server.planning.roots import Roots
from quantd_server.planning.time_estimate import FinishedJobs
from quantd_server.settings import Settings


@dataclasses.dataclass
class Running:
    """A server that serves, and a channel to it."""

    address: str
    channel: grpc.aio.Channel
    bound: BoundServer
    services: Services
    log: io.StringIO

    def events(self, name: str) -> list[dict[str, Any]]:
        """The lines of its log for one event."""
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in lines if line["event"] == name]

    async def logged_call(self) -> dict[str, Any]:
        """The line of the last call, which is written just after the client has its answer."""
        for _ in range(250):
            if calls := self.events("call"):
                return calls[-1]
            await asyncio.sleep(0.02)
        raise AssertionError("no call was logged")


@contextlib.asynccontextmanager
async def running(
    folder: Path,
    *,
    planner: Any = None,
    jobs: Any = None,
    credentials: grpc.ChannelCredentials | None = None,
    **settings: Any,
) -> AsyncIterator[Running]:
    """A server on a free port whose roots are ``folder``; ``credentials`` are the channel's."""
    settings.setdefault("listen", ("127.0.0.1:0",))
    config = Settings(source_roots=(str(folder),), output_roots=(str(folder),), **settings)
    stream = io.StringIO()
    log = Log(stream=stream)
    services = lifecycle.make_services(config, lifecycle.checked_roots(config), log)
    services = Services(
        planner=planner or services.planner,
        jobs=jobs or services.jobs,
        capabilities=services.capabilities,
    )
    bound = build(config, services, log)
    await lifecycle.start(bound)
    await lifecycle.warm_up(services)
    address = bound.addresses[0]
    try:
        async with channel_to(address, credentials) as channel:
            yield Running(address, channel, bound, services, stream)
    finally:
        await lifecycle.stop(bound, services, 0.2)


def channel_to(
    address: str, credentials: grpc.ChannelCredentials | None = None
) -> grpc.aio.Channel:
    """A channel, encrypted if there are credentials for it."""
    if credentials is None:
        return grpc.aio.insecure_channel(address)
    return grpc.aio.secure_channel(address, credentials)


SPEC = QuantizationSpec(
    source_uri="/models/a", output_uri="/models/b", method=MethodConfig(gguf=GgufConfig())
)
PLAN = Plan(
    method=SPEC.method,
    device="CPU",
    types=(),
    parameter_count=1,
    quantized_parameter_count=1,
    source_bytes=2,
    output_bytes=1,
    bits_per_weight=4.5,
    peak_memory_bytes=1,
    scratch_bytes=1,
)


class ScriptedPlanner:
    """Answers every plan with the same findings."""

    def __init__(self, *findings: Finding) -> None:
        self.findings = findings
        self.calls: list[QuantizationSpec] = []

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def plan(
        self, spec: QuantizationSpec, *, offset: int, page_size: int, roots: Roots | None = None
    ) -> PlanReport:
        self.calls.append(spec)
        next_offset = offset + page_size if page_size else None
        return PlanReport(spec=spec, findings=self.findings, plan=PLAN, next_offset=next_offset)


class ScriptedJobs:
    """Jobs of which each watch yields events 1 to ``count``, the last one SUCCEEDED."""

    def __init__(self, count: int = 3, *, endless: bool = False) -> None:
        self.jobs: dict[str, Job] = {}
        self.count = count
        self.endless = endless
        self.produced = 0
        self.open_watches = 0
        self.submitted: list[dict[str, Any]] = []
        self.stopping = asyncio.Event()
        self.finished_jobs = FinishedJobs()

    def add(self, name: str, **fields: Any) -> Job:
        job = Job(name=name, spec=SPEC, plan=PLAN, create_time=1.5, **fields)
        self.jobs[name] = job
        return job

    def find_request(self, request_id: str, spec: Any, labels: dict[str, str]) -> Job | None:
        return None

    async def submit(self, report: PlanReport, **request: Any) -> Job:
        self.submitted.append({"report": report, **request})
        return self.add(f"jobs/{len(self.jobs)}", owner=request["owner"])

    def get(self, name: str) -> Job:
        if name not in self.jobs:
            raise QuantdError(
                reason="JOB_NOT_FOUND", message="no such job", field="name", kind="not_found"
            )
        return self.jobs[name]

    async def list(self, wanted: JobFilter, *, owner: str | None, before: int, limit: int) -> Page:
        numbered = [*enumerate(self.jobs.values(), 1)][: before - 1 if before else None]
        found = [
            each
            for each in reversed(numbered)
            if wanted.matches(each[1]) and owner in (None, each[1].owner)
        ]
        more = len(found) > limit
        return Page(jobs=[job for _, job in found[:limit]], next=found[limit - 1][0] if more else 0)

    async def watch(self, name: str, after_sequence: int) -> AsyncIterator[JobEvent]:
        job = self.get(name)
        self.open_watches += 1
        try:
            sequence = after_sequence
            while self.endless or sequence < self.count:
                sequence += 1
                self.produced += 1
                yield JobEvent(sequence=sequence, time=2.5, snapshot=job)
                if self.endless and self.produced > 200:
                    await self.stopping.wait()
                    return
        finally:
            self.open_watches -= 1

    async def cancel(self, name: str, reason: str) -> Job:
        return self.get(name)

    async def delete(self, name: str, *, delete_output: bool) -> None:
        self.get(name)

    async def stop(self, grace: float) -> None:
        self.stopping.set()


@dataclasses.dataclass
class Refusal:
    """A status taken apart."""

    code: grpc.StatusCode
    message: str
    info: ErrorInfo
    fields: list[BadRequest.FieldViolation]
    preconditions: list[PreconditionFailure.Violation]
    retry: RetryInfo | None

    @property
    def reason(self) -> str:
        return str(self.info.reason)


def refusal_of(error: grpc.RpcError) -> Refusal:
    """What a call was refused with; it must carry details of ours."""
    status = rpc_status.from_call(error)
    assert status is not None, f"no details: {error}"
    assert status.code == error.code().value[0]
    info, request, preconditions, retry = ErrorInfo(), BadRequest(), PreconditionFailure(), None
    for detail in status.details:
        for message in (info, request, preconditions):
            detail.Unpack(message)
        if detail.Is(RetryInfo.DESCRIPTOR):
            retry = RetryInfo()
            detail.Unpack(retry)
    assert info.domain == "quantd"
    return Refusal(
        error.code(),
        status.message,
        info,
        list(request.field_violations),
        list(preconditions.violations),
        retry,
    )


async def refused(call: Any) -> Refusal:
    """Awaits a call (or reads a stream) that has to fail."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    raise AssertionError("the call succeeded")
