"""The jobs of this server: submit, look, watch, cancel, delete.

What a client is told is durable first: changes go through the ``Journal`` into a ``JobStore``, and
come back as what is visible. With a state folder the store outlives the server, and ``start`` goes
on with the jobs in it; without one it is in memory, and stopping the server ends them. What runs
when is the ``Supervisor``'s business.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator

import msgspec

from quantd_server.engine.events import Progress
from quantd_server.engine.specification import QuantizationSpec
from quantd_server.errors import QuantdError
from quantd_server.jobs.event_log import EventLog
from quantd_server.jobs.job import (
    UNKNOWN_ORIGIN,
    Job,
    JobEvent,
    JobFilter,
    JobState,
    Origin,
    StoredJob,
)
from quantd_server.jobs.journal import Journal
from quantd_server.jobs.listing import MAX_PAGE, Page
from quantd_server.jobs.outputs import remove_output
from quantd_server.jobs.record import MAX_FINDINGS, JobRecord
from quantd_server.jobs.refusals import (
    job_not_finished,
    job_not_found,
    output_in_use,
    queue_full,
    request_id_reused,
    sequence_out_of_range,
    shutting_down,
)
from quantd_server.jobs.statistics import JobStatistics
from quantd_server.jobs.store import Change, JobStore
from quantd_server.jobs.supervisor import Supervisor
from quantd_server.jobs.time_to_a_place import time_to_a_place
from quantd_server.jobs.watching import follow
from quantd_server.jobs.worker_death import fault
from quantd_server.planning.report import PlanReport
from quantd_server.planning.time_estimate import FinishedJobs

STORE_PATIENCE = 5.0
"""Seconds that a server which stops waits for a store that cannot be written."""


class JobService:
    """Owns all jobs. Every method belongs to the event loop."""

    def __init__(
        self,
        *,
        max_running: int,
        max_queued: int,
        max_finished: int,
        max_events: int,
        heartbeat_interval: float,
        threads: int,
        memory_bytes: int = 0,
        log: Callable[..., None],
        store: JobStore | None = None,
        workers_lock: int | None = None,
    ) -> None:
        """``log(event, **fields)`` writes one line of the server's log.

        ``threads`` is of each job, ``memory_bytes`` of all that run, 0 for no limit. ``store`` is
        in memory by default; ``workers_lock`` is ``StateFolder.workers_lock``.
        """
        self.max_queued = max_queued
        self._max_finished, self._max_events = max_finished, max_events
        self._heartbeat_interval = heartbeat_interval
        self._write_log = log
        self.finished_jobs = FinishedJobs()
        """What planning estimates the time from."""
        self.statistics = JobStatistics()
        """What became of jobs since the start."""
        self._listeners: list[Callable[[StoredJob], None]] = []
        self._records: dict[str, JobRecord] = {}
        self._requests: dict[str, str] = {}
        self._journal = Journal(store or JobStore(None, max_events=max_events), log)
        self._supervisor = Supervisor(
            self._journal,
            max_running=max_running,
            threads=threads,
            memory_bytes=memory_bytes,
            workers_lock=workers_lock,
            on_end=self._ended,
            statistics=self.statistics,
            log=log,
        )
        self._stopping = False
        self._stopped = False

    async def start(self, check: Callable[[StoredJob], None] = lambda _: None) -> None:
        """Go on with the jobs of the store. To be called once, before anything else.

        ``check`` raises QuantdError for a job that may no longer run; it fails of that. Raises
        QuantdError STATE_UNREADABLE.
        """
        for stored in self._journal.stored_jobs():
            job = stored.job
            log = EventLog(self._max_events, last_sequence=job.last_sequence)
            record = JobRecord(stored, log, self._journal.write)
            self._keep(record)
            if job.result is not None:
                self.finished_jobs.add(job.plan, job.result.elapsed)
            if not job.finished:
                log.fill(await self._journal.events(job.name))
                try:
                    check(stored)
                except QuantdError as error:
                    record.failure = error.finding
        for record in list(self._records.values()):
            await self._supervisor.recover(record)
        self._drop_oldest()
        await self._journal.written()
        self._supervisor.start()

    def _keep(self, record: JobRecord) -> None:
        self._records[record.job.name] = record
        if record.job.request_id:
            self._requests[record.job.request_id] = record.job.name

    # -- submitting ------------------------------------------------------------------------------

    def find_request(
        self, request_id: str, spec: QuantizationSpec, labels: dict[str, str]
    ) -> Job | None:
        """The job that this very request made before; None when there is none.

        Raises QuantdError REQUEST_ID_REUSED when the id belongs to another request.
        """
        if not request_id or request_id not in self._requests:
            return None
        record = self._records[self._requests[request_id]]
        if record.stored.requested != spec or record.job.labels != labels:
            raise request_id_reused(request_id, record.job)
        return record.job

    async def submit(
        self,
        report: PlanReport,
        *,
        requested: QuantizationSpec,
        request_id: str,
        labels: dict[str, str],
        owner: str = "",
        origin: Origin = UNKNOWN_ORIGIN,
    ) -> Job:
        """Queue the job that ``report`` plans for the spec ``requested``.

        Returns when the job is durable. Raises QuantdError with REQUEST_ID_REUSED, QUEUE_FULL,
        OUTPUT_IN_USE, SHUTTING_DOWN or STATE_NOT_WRITABLE.
        """
        existing = self.find_request(request_id, requested, labels)
        if existing is not None:
            return existing
        self._admit(report.output_path)
        assert report.plan is not None
        name = f"jobs/{uuid.uuid4()}"
        job = Job(
            name=name,
            request_id=request_id,
            owner=owner,
            spec=report.spec,
            labels=labels,
            plan=report.plan,
            findings=report.findings[:MAX_FINDINGS],
            progress=Progress(bytes_total=report.plan.source_bytes),
            create_time=time.time(),
        )
        stored = StoredJob(
            job=job,
            requested=requested,
            source_path=report.source_path,
            output_path=report.output_path,
            paths=report.paths,
            source_fingerprint=report.source_fingerprint,
            origin=origin,
        )
        record = JobRecord(stored, EventLog(self._max_events), self._journal.write)
        record.update(state="QUEUED")
        self._keep(record)
        self._write_log(
            "job.queued", **record.log_fields, method=job.spec.method.name, caller=owner or None
        )
        self._supervisor.submit(record)
        await self._journal.written()
        return record.visible

    def _admit(self, output_path: str) -> None:
        if self._stopping:
            raise shutting_down()
        self._journal.check()
        waiting = len(self._supervisor.queue)
        if waiting >= self.max_queued:
            running = [job for job, _ in self._supervisor.workers()]
            delay = time_to_a_place(running, time.time(), self.finished_jobs.estimate)
            raise queue_full(waiting, self.max_queued, delay)
        for record in self._records.values():
            if not record.job.finished and record.stored.output_path == output_path:
                raise output_in_use(record.job)

    # -- looking ---------------------------------------------------------------------------------

    def get(self, name: str) -> Job:
        """The job. Raises QuantdError JOB_NOT_FOUND."""
        return self._as_seen(self._record(name))

    async def list(
        self,
        wanted: JobFilter,
        *,
        owner: str | None = None,
        before: int = 0,
        limit: int = MAX_PAGE,
    ) -> Page:
        """The newest jobs that match, of one owner alone if one is given.

        ``before``: ``Page.next`` of the page before. Raises QuantdError SHUTTING_DOWN or
        STATE_UNREADABLE.
        """
        found = await self._journal.page(wanted, owner=owner, before=before, limit=limit + 1)
        page, more = found[:limit], len(found) > limit
        # Some may be gone, or in another state, since the store was asked.
        records = [self._records[name] for _, name in page if name in self._records]
        jobs = [job for job in map(self._as_seen, records) if wanted.matches(job)]
        return Page(jobs=jobs, next=page[-1][0] if more else 0)

    async def watch(self, name: str, after_sequence: int) -> AsyncIterator[JobEvent]:
        """The job's events after a sequence, live, until its last one.

        Raises QuantdError JOB_NOT_FOUND, SEQUENCE_OUT_OF_RANGE or, when the server has stopped
        and the job has not ended, SHUTTING_DOWN.
        """
        record = self._record(name)
        if not record.log.is_filled:
            record.log.fill(await self._journal.events(name))
        if after_sequence > record.log.last_sequence:
            raise sequence_out_of_range(after_sequence, record.log.last_sequence)
        async for event in follow(
            record, after_sequence, self._heartbeat_interval, lambda: self._stopped
        ):
            yield event

    @property
    def queue_depth(self) -> int:
        """How many jobs wait."""
        return len(self._supervisor.queue)

    def count_by_state(self) -> Counter[JobState]:
        """How many jobs are known, by state."""
        return Counter(record.job.state for record in self._records.values())

    def workers(self) -> Iterator[tuple[Job, int]]:
        """The jobs that have a worker, each with the process id of that."""
        return self._supervisor.workers()

    def _record(self, name: str) -> JobRecord:
        record = self._records.get(name)
        if record is None:
            raise job_not_found(name)
        return record

    def _as_seen(self, record: JobRecord) -> Job:
        place = self._supervisor.queue.place(record) if record.visible.state == "QUEUED" else None
        if place is None:
            return record.visible
        return msgspec.structs.replace(record.visible, queue_position=place)

    # -- ending ----------------------------------------------------------------------------------

    async def cancel(self, name: str, reason: str) -> Job:
        """Ask the job to stop. Raises QuantdError JOB_NOT_FOUND."""
        record = self._record(name)
        message = "cancelled by a client" + (f": {reason}" if reason else "")
        await self._supervisor.stop_job(record, fault("CANCELLED", message, "", "cancelled"))
        await self._journal.written()
        return record.visible

    async def delete(self, name: str, *, delete_output: bool) -> None:
        """Forget the job. Raises QuantdError JOB_NOT_FOUND, JOB_NOT_FINISHED or SHUTTING_DOWN."""
        record = self._record(name)
        if self._stopping:
            raise shutting_down()
        if not record.job.finished:
            raise job_not_finished(record.job)
        if delete_output and record.job.result is not None:
            await asyncio.to_thread(remove_output, record.stored.output_path, record.job.result)
        self._forget(record)
        await self._journal.written()

    async def stop(self, grace: float) -> None:
        """Accept nothing more, and give workers ``grace`` seconds to stop.

        Jobs wait for the next server where there is a store for that, and end otherwise.
        """
        self._stopping = True
        if not self._journal.durable:
            cause = fault(
                "SERVER_STOPPED",
                "the server stopped before the job was done",
                "quantize again when it is back",
                "unavailable",
            )
            for record in list(self._records.values()):
                await self._supervisor.stop_job(record, cause)
        await self._supervisor.stop(grace)
        await self._journal.close(STORE_PATIENCE)
        self._stopped = True
        for record in self._records.values():
            record.log.wake()

    # -- keeping ---------------------------------------------------------------------------------

    def when_ended(self, listener: Callable[[StoredJob], None]) -> None:
        """Have ``listener`` told of every job that ends."""
        self._listeners.append(listener)

    def _ended(self, record: JobRecord) -> None:
        for listener in self._listeners:
            listener(record.stored)
        if record.job.result is not None:
            self.finished_jobs.add(record.job.plan, record.job.result.elapsed)
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        finished = [record for record in self._records.values() if record.job.finished]
        for record in finished[: max(0, len(finished) - self._max_finished)]:
            self._forget(record)

    def _forget(self, record: JobRecord) -> None:
        name = record.job.name
        self._records.pop(name, None)
        self._requests.pop(record.job.request_id, None)
        self._journal.write(Change(name=name, job=None), lambda: None)
