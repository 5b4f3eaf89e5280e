"""`QuantizationService` of the spec."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from quantd import v1
from quantd_server.api.capabilities import Capabilities
from quantd_server.api.error_codec import StatusError, status_of
from quantd_server.api.events import events_after
from quantd_server.api.interceptor import Context, caller, note_effect, note_job, origin
from quantd_server.api.paging import position_of, token_of
from quantd_server.api.translation import from_message, to_message
from quantd_server.engine.specification import QuantizationSpec
from quantd_server.errors import QuantdError, Severity
from quantd_server.jobs.job import Job
from quantd_server.jobs.service import JobService
from quantd_server.planning.planner_process import Planner
from quantd_server.planning.report import PlanReport


class QuantizationServicer(v1.QuantizationServiceServicer):
    """Translates and delegates to the planner and the job service."""

    def __init__(self, planner: Planner, jobs: JobService, capabilities: Capabilities) -> None:
        self._planner = planner
        self._jobs = jobs
        self._capabilities = capabilities

    async def GetCapabilities(  # noqa: N802
        self, request: v1.GetCapabilitiesRequest, context: Context
    ) -> v1.GetCapabilitiesResponse:
        return await self._capabilities.current(refresh=request.refresh)

    async def InspectCheckpoint(  # noqa: N802
        self, request: v1.InspectCheckpointRequest, context: Context
    ) -> v1.InspectCheckpointResponse:
        report = await self._planner.inspect(
            request.source_uri,
            context_length=request.context_length if request.HasField("context_length") else None,
            offset=position_of(request),
            page_size=request.page_size,
            roots=caller().roots,
        )
        response = to_message(report, v1.InspectCheckpointResponse)
        response.next_page_token = _next_page_token(request, report.next_offset)
        return response

    async def ParseConfig(  # noqa: N802
        self, request: v1.ParseConfigRequest, context: Context
    ) -> v1.ParseConfigResponse:
        parsed = await self._planner.parse_config(request.config_json)
        return to_message(parsed, v1.ParseConfigResponse)

    async def PlanQuantization(  # noqa: N802
        self, request: v1.PlanQuantizationRequest, context: Context
    ) -> v1.PlanQuantizationResponse:
        report = await self._plan(
            request.spec, offset=position_of(request), page_size=request.page_size
        )
        response = to_message(report, v1.PlanQuantizationResponse)
        response.executable = report.executable
        response.next_page_token = _next_page_token(request, report.next_offset)
        return response

    async def Quantize(  # noqa: N802
        self, request: v1.QuantizeRequest, context: Context
    ) -> AsyncIterator[v1.QuantizeResponse]:
        job = await self._job_for(request)
        note_job(job.name)
        note_effect()
        events = events_after(self._jobs, job.name, 0)
        async with contextlib.aclosing(events):  # type: ignore[type-var]
            async for event in events:
                yield v1.QuantizeResponse(event=event)

    async def _job_for(self, request: v1.QuantizeRequest) -> Job:
        """The job that the request made before, or a new one."""
        requested, labels = from_message(request.spec, QuantizationSpec), dict(request.labels)
        job = self._jobs.find_request(request.request_id, requested, labels)
        if job is not None:
            return _own(job, request.request_id)
        report = await self._plan(request.spec, offset=0, page_size=0)
        errors = [finding for finding in report.findings if finding.severity is Severity.ERROR]
        if errors:
            raise StatusError(status_of(errors))
        job = await self._jobs.submit(
            report,
            requested=requested,
            request_id=request.request_id,
            labels=labels,
            owner=caller().name,
            origin=origin(),
        )
        return _own(job, request.request_id)  # it may have been made meanwhile

    async def _plan(
        self, message: v1.QuantizationSpec, *, offset: int, page_size: int
    ) -> PlanReport:
        spec = from_message(message, QuantizationSpec)
        report = await self._planner.plan(
            spec, offset=offset, page_size=page_size, roots=caller().roots
        )
        if report.plan is not None:
            plan = self._jobs.finished_jobs.estimate(report.plan)
            report = msgspec.structs.replace(report, plan=plan)
        return report


def _own(job: Job, request_id: str) -> Job:
    """The job; but it is not handed over to another caller who knows its request."""
    if job.owner != caller().name:
        raise QuantdError(
            reason="REQUEST_ID_REUSED",
            field="request_id",
            kind="exists",
            message=f"request_id {request_id} was used by another caller",
            remedy="use a new UUID for a new request",
        )
    return job


def _next_page_token(request: Any, next_offset: int | None) -> str:
    return token_of(request, next_offset) if next_offset else ""
