"""The jobs of this server: submit, look, watch, cancel, delete.

Jobs live in memory and end with the server. ``JobRecord`` and ``EventLog`` are what a durable
store has to keep; the hidden output folder, named after the job, is what a resumed worker finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable

import msgspec

from quantd_server.engine.events import Progress
from quantd_server.engine.specification import QuantizationSpec, WorkOrder
from quantd_server.errors import Finding, FindingKind, QuantdError, Severity
from quantd_server.jobs.job import Job, JobEvent, JobFilter
from quantd_server.jobs.outputs import discard_unfinished, remove_output
from quantd_server.jobs.record import MAX_FINDINGS, JobRecord
from quantd_server.jobs.refusals import job_not_found
from quantd_server.jobs.worker_process import WorkerProcess
from quantd_server.planning.report import PlanReport
from quantd_server.planning.time_estimate import FinishedJobs

STOP_PATIENCE = 10.0
"""Seconds a worker may take to stop by itself before it is killed."""


class JobService:
    """Owns all jobs and their workers. Every method belongs to the event loop."""

    def __init__(
        self,
        *,
        max_running: int,
        max_queued: int,
        max_finished: int,
        max_events: int,
        heartbeat_interval: float,
        threads: int,
        log: Callable[..., None],
    ) -> None:
        """``log(event, **fields)`` writes one line of the server's log."""
        self._max_running = max_running
        self._max_queued = max_queued
        self._max_finished = max_finished
        self._max_events = max_events
        self._heartbeat_interval = heartbeat_interval
        self._threads = threads
        self._write_log = log
        self.finished_jobs = FinishedJobs()
        """What planning estimates the time from."""
        self._records: dict[str, JobRecord] = {}
        self._requests: dict[str, str] = {}
        self._queue: deque[JobRecord] = deque()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._stopping = False

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
        if record.requested != spec or record.job.labels != labels:
            raise QuantdError(
                reason="REQUEST_ID_REUSED",
                field="request_id",
                kind="exists",
                message=f"request_id {request_id} was used for another request, "
                f"which made {record.job.name}",
                remedy="use a new UUID for a new request",
            )
        return record.job

    async def submit(
        self,
        report: PlanReport,
        *,
        requested: QuantizationSpec,
        request_id: str,
        labels: dict[str, str],
        owner: str = "",
    ) -> Job:
        """Queue the job that ``report`` plans for the spec ``requested``.

        Raises QuantdError with REQUEST_ID_REUSED, QUEUE_FULL, OUTPUT_IN_USE or SHUTTING_DOWN.
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
        record = JobRecord(
            job,
            requested=requested,
            source_path=report.source_path,
            output_path=report.output_path,
            paths=report.paths,
            source_fingerprint=report.source_fingerprint,
            max_events=self._max_events,
        )
        self._records[name] = record
        if request_id:
            self._requests[request_id] = name
        self._queue.append(record)
        self._write_log("job.queued", job=name, method=job.spec.method.name)
        self._start_waiting()
        return record.job

    def _admit(self, output_path: str) -> None:
        if self._stopping:
            raise _shutting_down()
        if len(self._queue) >= self._max_queued:
            raise QuantdError(
                reason="QUEUE_FULL",
                kind="exhausted",
                message=f"{len(self._queue)} jobs are waiting already; at most {self._max_queued}",
                remedy="try again after the delay in RetryInfo",
            )
        for record in self._records.values():
            if not record.job.finished and record.output_path == output_path:
                raise QuantdError(
                    reason="OUTPUT_IN_USE",
                    field="spec.output_uri",
                    kind="precondition",
                    message=f"{record.job.name} is going to write the same output",
                    remedy="choose another output_uri, or wait for that job",
                )

    # -- looking ---------------------------------------------------------------------------------

    def get(self, name: str) -> Job:
        """The job. Raises QuantdError JOB_NOT_FOUND."""
        return self._as_seen(self._record(name))

    def list(self, job_filter: JobFilter) -> list[Job]:
        """The jobs that match, the newest first."""
        jobs = [self._as_seen(record) for record in self._records.values()]
        return [job for job in reversed(jobs) if job_filter.matches(job)]

    async def watch(self, name: str, after_sequence: int) -> AsyncIterator[JobEvent]:
        """The job's events after a sequence, live, until its last one.

        Raises QuantdError JOB_NOT_FOUND or SEQUENCE_OUT_OF_RANGE.
        """
        record = self._record(name)
        if after_sequence > record.log.last_sequence:
            raise QuantdError(
                reason="SEQUENCE_OUT_OF_RANGE",
                field="after_sequence",
                kind="out_of_range",
                message=f"got {after_sequence}, but the job's last event is "
                f"{record.log.last_sequence}",
                remedy=f"watch from {record.log.last_sequence} at most",
            )
        while True:
            changed, pulse = record.log.changed, record.pulse
            events = record.log.after(after_sequence)
            if events is None:
                events = [record.snapshot()]
            for event in events:
                yield event
                after_sequence = event.sequence
            if record.job.finished and after_sequence >= record.log.last_sequence:
                return
            if record.log.last_sequence > after_sequence:
                continue  # more came while the reader was taking those
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), self._heartbeat_interval)
                if record.pulse == pulse:
                    continue
            if record.log.last_sequence == after_sequence:
                yield record.heartbeat(after_sequence)

    def _record(self, name: str) -> JobRecord:
        record = self._records.get(name)
        if record is None:
            raise job_not_found(name)
        return record

    def _as_seen(self, record: JobRecord) -> Job:
        if record.job.state != "QUEUED":
            return record.job
        return msgspec.structs.replace(record.job, queue_position=self._queue.index(record))

    # -- ending ----------------------------------------------------------------------------------

    async def cancel(self, name: str, reason: str) -> Job:
        """Ask the job to stop. Raises QuantdError JOB_NOT_FOUND."""
        record = self._record(name)
        message = "cancelled by a client" + (f": {reason}" if reason else "")
        self._stop_job(record, _stopped("CANCELLED", message, "", "cancelled"))
        return record.job

    def _stop_job(self, record: JobRecord, cause: Finding) -> None:
        if record.job.finished or record.stop_cause is not None:
            return
        record.stop_cause = cause
        if record in self._queue:
            self._queue.remove(record)
            self._finish(record)
            return
        record.update(state="CANCELLING")
        if record.worker is not None:
            record.worker.ask_to_stop()
            asyncio.get_running_loop().call_later(STOP_PATIENCE, record.worker.kill)

    async def delete(self, name: str, *, delete_output: bool) -> None:
        """Forget the job. Raises QuantdError JOB_NOT_FOUND or JOB_NOT_FINISHED."""
        record = self._record(name)
        if not record.job.finished:
            raise QuantdError(
                reason="JOB_NOT_FINISHED",
                field="name",
                kind="precondition",
                message=f"{name} is {record.job.state}; only finished jobs can be deleted",
                remedy="cancel it first",
            )
        if delete_output and record.job.result is not None:
            await asyncio.to_thread(remove_output, record.output_path, record.job.result)
        self._forget(record)

    def _forget(self, record: JobRecord) -> None:
        self._records.pop(record.job.name, None)
        self._requests.pop(record.job.request_id, None)

    async def stop(self, grace: float) -> None:
        """Accept nothing more, end every job, and give workers ``grace`` seconds to stop."""
        self._stopping = True
        cause = _stopped(
            "SERVER_STOPPED",
            "the server stopped before the job was done",
            "quantize again when it is back",
            "unavailable",
        )
        for record in list(self._records.values()):
            self._stop_job(record, cause)
        if self._running:
            _, pending = await asyncio.wait(self._running.values(), timeout=grace)
            for name in list(self._running):
                worker = self._records[name].worker
                if worker is not None:
                    worker.kill()
            if pending:
                await asyncio.wait(pending)

    # -- running ---------------------------------------------------------------------------------

    def _start_waiting(self) -> None:
        while self._queue and len(self._running) < self._max_running:
            record = self._queue.popleft()
            name = record.job.name
            # Now, not when the task gets its turn: a job is in the queue just as long as it is
            # QUEUED, and may be cancelled before then.
            record.update(state="RUNNING", start_time=time.time(), queue_position=0)
            self._running[name] = asyncio.create_task(self._run(record), name=name)

    async def _run(self, record: JobRecord) -> None:
        name = record.job.name
        worker = record.worker = WorkerProcess()
        try:
            await worker.start(self._order(record))
            self._write_log("job.started", job=name, worker_pid=worker.pid)
            if record.stop_cause is not None:
                worker.ask_to_stop()
            async for event in worker.events():
                record.apply(event)
        except Exception as error:  # noqa: BLE001 - our fault must end this job, not the server
            worker.kill()
            record.failure = _stopped(
                "INTERNAL", "internal error", "look up the job in the server's log", "internal"
            )
            self._write_log("job.fault", job=name, error=repr(error))
        finally:
            # A worker that was killed could not clean up; without resumption its work is waste.
            await asyncio.to_thread(discard_unfinished, record.output_path, name)
            self._running.pop(name, None)
            self._finish(record)
            self._start_waiting()

    def _order(self, record: JobRecord) -> WorkOrder:
        return WorkOrder(
            job_id=record.job.name.removeprefix("jobs/"),
            spec=record.job.spec,
            source_path=record.source_path,
            output_path=record.output_path,
            paths=record.paths,
            source_fingerprint=record.source_fingerprint,
            threads=self._threads,
        )

    def _finish(self, record: JobRecord) -> None:
        end = time.time()
        worker = record.worker
        if record.job.result is not None:
            record.update(state="SUCCEEDED", end_time=end)
            self.finished_jobs.add(record.job.plan, record.job.result.elapsed)
        elif record.stop_cause is not None:
            cancelled = record.stop_cause.reason == "CANCELLED"
            record.update(
                state="CANCELLED" if cancelled else "FAILED", end_time=end, error=record.stop_cause
            )
        else:
            error = record.failure or _death(worker.returncode if worker else None)
            record.update(state="FAILED", end_time=end, error=error)
        self._write_log(
            "job.ended",
            job=record.job.name,
            state=record.job.state,
            reason=record.job.error.reason if record.job.error else None,
            seconds=round(end - record.job.create_time, 3),
            worker_log=worker.log if worker and record.job.state == "FAILED" else None,
        )
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        finished = [record for record in self._records.values() if record.job.finished]
        for record in finished[: max(0, len(finished) - self._max_finished)]:
            self._forget(record)


def _stopped(reason: str, message: str, remedy: str, kind: FindingKind) -> Finding:
    return Finding(
        severity=Severity.ERROR, field="", reason=reason, message=message, remedy=remedy, kind=kind
    )


def _shutting_down() -> QuantdError:
    return QuantdError(
        reason="SHUTTING_DOWN",
        kind="unavailable",
        message="the server is stopping",
        remedy="try again with backoff",
    )


def _death(returncode: int | None) -> Finding:
    """What to say of a worker that ended without a word."""
    if returncode == -9:
        return Finding(
            severity=Severity.ERROR,
            field="",
            reason="WORKER_KILLED",
            message="the worker was killed by signal 9, most likely because memory ran out",
            remedy="compare Plan.peak_memory_bytes with the memory that is free, use fewer "
            "threads, or free some memory",
            kind="exhausted",
        )
    what = f"signal {-returncode}" if returncode and returncode < 0 else f"status {returncode}"
    return Finding(
        severity=Severity.ERROR,
        field="",
        reason="WORKER_DIED",
        message=f"the worker ended with {what} before the job was done",
        remedy="look up the job in the server's log",
        kind="internal",
    )
