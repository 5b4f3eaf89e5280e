"""`JobService` of the spec."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import msgspec

from quantd import v1
from quantd_server.api.events import events_after
from quantd_server.api.interceptor import Context, caller
from quantd_server.api.paging import position_of, token_of
from quantd_server.api.translation import from_message, to_message
from quantd_server.errors import QuantdError
from quantd_server.jobs.job import Job, JobFilter
from quantd_server.jobs.listing import MAX_PAGE
from quantd_server.jobs.refusals import job_not_found
from quantd_server.jobs.service import JobService

DEFAULT_PAGE_SIZE = 50


class JobServicer(v1.JobServiceServicer):
    """Translates and delegates to the job service."""

    def __init__(self, jobs: JobService) -> None:
        self._jobs = jobs

    async def GetJob(  # noqa: N802
        self, request: v1.GetJobRequest, context: Context
    ) -> v1.GetJobResponse:
        return v1.GetJobResponse(job=_message(self._seen(request.name)))

    async def ListJobs(  # noqa: N802
        self, request: v1.ListJobsRequest, context: Context
    ) -> v1.ListJobsResponse:
        page = await self._jobs.list(
            _filter(request),
            owner=caller().sees_jobs_of,
            before=position_of(request),
            limit=min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE),
        )
        return v1.ListJobsResponse(
            jobs=[_message(job) for job in page.jobs],
            next_page_token=token_of(request, page.next) if page.next else "",
        )

    async def WatchJob(  # noqa: N802
        self, request: v1.WatchJobRequest, context: Context
    ) -> AsyncIterator[v1.WatchJobResponse]:
        self._seen(request.name)
        events = events_after(self._jobs, request.name, request.after_sequence)
        async with contextlib.aclosing(events):  # type: ignore[type-var]
            async for event in events:
                yield v1.WatchJobResponse(event=event)

    async def CancelJob(  # noqa: N802
        self, request: v1.CancelJobRequest, context: Context
    ) -> v1.CancelJobResponse:
        self._check_may_end(request.name)
        job = await self._jobs.cancel(request.name, request.reason)
        return v1.CancelJobResponse(job=_message(job))

    async def DeleteJob(  # noqa: N802
        self, request: v1.DeleteJobRequest, context: Context
    ) -> v1.DeleteJobResponse:
        self._check_may_end(request.name)
        await self._jobs.delete(request.name, delete_output=request.delete_output)
        return v1.DeleteJobResponse()

    def _seen(self, name: str) -> Job:
        """The job. Raises QuantdError JOB_NOT_FOUND, also when the caller may not know of it."""
        job = self._jobs.get(name)
        if not caller().sees(job):
            raise job_not_found(name)
        return job

    def _check_may_end(self, name: str) -> None:
        """Raises QuantdError JOB_NOT_FOUND or JOB_OF_ANOTHER."""
        if not caller().may_end(self._seen(name)):
            raise QuantdError(
                reason="JOB_OF_ANOTHER",
                field="name",
                kind="denied",
                message=f"{name} was made by another caller",
                remedy="leave it to its owner, or ask an admin",
            )


def _filter(request: v1.ListJobsRequest) -> JobFilter:
    # The API's methods are named as the fields of `MethodConfig`, in upper case.
    criteria = from_message(request, JobFilter)
    return msgspec.structs.replace(
        criteria, methods=frozenset(name.lower() for name in criteria.methods)
    )


def _message(job: Job) -> v1.Job:
    return to_message(job, v1.Job)
