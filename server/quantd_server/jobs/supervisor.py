"""The queue and the workers: what runs when, what becomes of it, and what is begun again.

A job is begun again when the server was killed under it, when its worker was, or when the server
was stopped in order and keeps its jobs. A server that keeps its jobs keeps the hidden folder, too:
the next worker goes on with the tensors that are done (``engine.finished_tensors``) and after the
blocks that are solved (``engine.solved_blocks``), and ends with the bytes of an undisturbed run.
Otherwise the folder is discarded first. Whether a worker had published its output before its end
is told by the receipt it leaves (``checkpoint.output``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

from quantd_server.engine.events import Progress
from quantd_server.engine.specification import WorkOrder
from quantd_server.errors import Finding
from quantd_server.host.cgroup import memory_kills
from quantd_server.host.system import this_system
from quantd_server.jobs.job import Job
from quantd_server.jobs.journal import Journal
from quantd_server.jobs.outputs import discard_unfinished, published_result, steps_on_record
from quantd_server.jobs.queue import JobQueue
from quantd_server.jobs.record import JobRecord
from quantd_server.jobs.statistics import JobStatistics
from quantd_server.jobs.worker_death import (
    cause_of_death,
    fault,
    may_retry,
    retried,
    too_many_attempts,
)
from quantd_server.jobs.worker_process import WorkerProcess

STOP_PATIENCE = 10.0
"""Seconds a worker may take to stop by itself before it is killed."""


class Supervisor:
    """Runs jobs that are waiting. Every method belongs to the event loop."""

    def __init__(
        self,
        journal: Journal,
        *,
        max_running: int,
        threads: int,
        memory_bytes: int,
        workers_lock: int | None,
        on_end: Callable[[JobRecord], None],
        statistics: JobStatistics,
        log: Callable[..., None],
    ) -> None:
        """``memory_bytes``: that workers may take together, by their plans, unless one of them
        alone takes more; 0 for no limit. ``workers_lock``: descriptor that workers hold;
        ``on_end`` hears of finished jobs.
        """
        self._journal = journal
        self._max_running = max_running
        self._threads = threads
        self._memory_bytes = memory_bytes
        self._keep_open = () if workers_lock is None else (workers_lock,)
        self._on_end = on_end
        self._statistics = statistics
        self._log = log
        self._running: dict[str, tuple[JobRecord, asyncio.Task[None]]] = {}
        self._stopping = False
        self.queue = JobQueue()

    def submit(self, record: JobRecord) -> None:
        """Let a job run when there is a place."""
        self.queue.append(record)
        self._start_waiting()

    async def recover(self, record: JobRecord) -> None:
        """Go on with a job of the server before; no worker of that server is alive.

        Call ``start`` after the last one: then they run in the order in which they came.
        """
        job, stored = record.job, record.stored
        if job.state == "QUEUED" and record.failure is None:
            self.queue.append(record)
            return
        if job.finished:
            await self._discard(record)
            return
        await self._take_result(record)
        if not (record.job.result or stored.stop_cause or record.failure):
            await self._count_attempt(record)
            record.failure = too_many_attempts(
                futile=record.stored.futile_attempts, attempts=stored.attempts
            )
        if record.job.result or stored.stop_cause or record.failure:
            await self._discard(record)
            self._finish(record)
        else:
            why = "the server ended while the job ran"
            self._statistics.skip(record.job)
            self._begin_again(record, retried(why, stored.attempts + 1))
            self.queue.append(record)

    def start(self) -> None:
        """Run what is waiting."""
        self._start_waiting()

    def workers(self) -> Iterator[tuple[Job, int]]:
        """The jobs whose worker runs, each with its process id."""
        for record, _ in self._running.values():
            worker = record.worker
            if worker is not None and worker.pid is not None and worker.returncode is None:
                yield record.job, worker.pid

    async def stop_job(self, record: JobRecord, cause: Finding) -> None:
        """End a job for a reason, unless it has ended or is ending."""
        if record.job.finished or record.stored.stop_cause is not None:
            return
        record.note(stop_cause=cause)
        if record in self.queue:
            self.queue.remove(record)
            if self._journal.durable:  # a worker may have left something to go on with
                await self._discard(record)
            self._finish(record)
            return
        record.update(state="CANCELLING")
        self._ask_to_stop(record)

    async def stop(self, grace: float) -> None:
        """Start nothing more; have the workers stop, and kill them after ``grace`` seconds.

        A job that ran and was not told why it has to stop waits for the next server.
        """
        self._stopping = True
        if not self._running:
            return
        for record, _ in self._running.values():
            if record.worker is not None:
                record.worker.ask_to_stop()
        tasks = [task for _, task in self._running.values()]
        _, pending = await asyncio.wait(tasks, timeout=grace)
        for record, _ in list(self._running.values()):
            if record.worker is not None:
                record.worker.kill()
        if pending:  # bounded, since the store may not take what they have to say
            await asyncio.wait(pending, timeout=STOP_PATIENCE)

    def _ask_to_stop(self, record: JobRecord) -> None:
        if record.worker is not None:
            record.worker.ask_to_stop()
            asyncio.get_running_loop().call_later(STOP_PATIENCE, record.worker.kill)

    def _start_waiting(self) -> None:
        while len(self._running) < self._max_running and not self._stopping:
            record = self.queue.first()
            if record is None or not self._has_memory_for(record):
                return  # one that takes less does not overtake: the other could wait for ever
            self.queue.take_first()
            name = record.job.name
            # Now, not when the task gets its turn: a job is in the queue just as long as it is
            # QUEUED, and may be cancelled before then.
            record.note(attempts=record.stored.attempts + 1)
            record.update(state="RUNNING", start_time=time.time())
            self._running[name] = (record, asyncio.create_task(self._run(record), name=name))

    def _has_memory_for(self, record: JobRecord) -> bool:
        if not self._running or not self._memory_bytes:
            return True
        taken = sum(other.job.plan.peak_memory_bytes for other, _ in self._running.values())
        return taken + record.job.plan.peak_memory_bytes <= self._memory_bytes

    async def _run(self, record: JobRecord) -> None:
        name = record.job.name

        def say(line: str) -> None:
            self._log("worker.stderr", **record.log_fields, worker_pid=worker.pid, line=line)

        worker = record.worker = WorkerProcess(say)
        system = this_system().root
        kills = memory_kills(system)
        try:
            # No worker that the store does not know of: it could publish the output of a job that
            # nobody has heard of, or be one more than are allowed.
            await self._journal.written()
            await worker.start(self._order(record), keep_open=self._keep_open)
            self._log(
                "job.started",
                **record.log_fields,
                attempt=record.stored.attempts,
                worker_pid=worker.pid,
            )
            if record.stored.stop_cause is not None or self._stopping:
                worker.ask_to_stop()
            async for event in worker.events():
                record.apply(event)
                self._statistics.add_event(record.job, event)
        except Exception as error:  # noqa: BLE001 - our fault must end this job, not the server
            worker.kill()
            record.failure = fault(
                "INTERNAL", "internal error", "look up the job in the server's log", "internal"
            )
            self._log("job.fault", **record.log_fields, error=repr(error))
        finally:
            await self._take_result(record)
            killed_for_memory = memory_kills(system) != kills
            if not self._is_settled(record):
                await self._count_attempt(record)
            warning = self._reason_to_retry(record, killed_for_memory=killed_for_memory)
            again = warning is not None or self._is_left_to_the_next_server(record)
            if not (again and self._journal.durable):
                await self._discard(record)
            self._running.pop(name, None)
            if again and record.stored.stop_cause is None:
                self._begin_again(record, warning)
                self.queue.append_first(record)
            else:
                self._finish(record)
            self._start_waiting()

    async def _take_result(self, record: JobRecord) -> None:
        """Learn whether the output is there; when the receipt goes, the result is durable."""
        if record.job.result is None:
            path, name = record.stored.output_path, record.job.name
            result = await asyncio.to_thread(published_result, path, name)
            if result is not None:
                record.apply(result)
        await self._journal.written()

    async def _count_attempt(self, record: JobRecord) -> None:
        """Learn whether the attempt that was cut off got further than those before."""
        path, name = record.stored.output_path, record.job.name
        steps = await asyncio.to_thread(steps_on_record, path, name)
        if steps > record.stored.furthest:
            record.note(furthest=steps, futile_attempts=0)
        else:
            record.note(futile_attempts=record.stored.futile_attempts + 1)

    async def _discard(self, record: JobRecord) -> None:
        """Remove what a worker left besides the output."""
        await asyncio.to_thread(discard_unfinished, record.stored.output_path, record.job.name)

    def _is_settled(self, record: JobRecord) -> bool:
        """Whether it is clear how the job ends, or its worker was stopped in order."""
        ends = record.job.result or record.stored.stop_cause or record.failure
        return bool(ends) or self._stopping

    def _is_left_to_the_next_server(self, record: JobRecord) -> bool:
        """Whether a worker ended because the server stops, and the job is not to end with it."""
        settled = record.job.result or record.stored.stop_cause or record.failure
        return self._stopping and not settled

    def _reason_to_retry(self, record: JobRecord, *, killed_for_memory: bool) -> Finding | None:
        """The warning to begin again with; without one, ``record`` knows how the job ends."""
        if self._is_settled(record):
            return None
        returncode = record.worker.returncode if record.worker else None
        cause = cause_of_death(returncode, killed_for_memory=killed_for_memory)
        stored = record.stored
        if may_retry(returncode, futile=stored.futile_attempts, attempts=stored.attempts):
            return retried(cause.message, stored.attempts + 1)
        record.failure = cause
        return None

    def _order(self, record: JobRecord) -> WorkOrder:
        stored = record.stored
        calibration = stored.job.plan.calibration
        return WorkOrder(
            job_id=stored.job.name.removeprefix("jobs/"),
            spec=stored.job.spec,
            source_path=stored.source_path,
            output_path=stored.output_path,
            paths=stored.paths,
            source_fingerprint=stored.source_fingerprint,
            calibration_sha256=calibration.sha256 if calibration else "",
            threads=self._threads,
            recoverable=self._journal.durable,
        )

    def _begin_again(self, record: JobRecord, warning: Finding | None) -> None:
        if warning is not None:
            record.warn(warning)
        else:  # an attempt that the server cut short in order does not count
            record.note(attempts=record.stored.attempts - 1)
        self._log(
            "job.requeued",
            **record.log_fields,
            why=warning.message if warning else "the server stops",
            worker_log=record.worker.log if record.worker and warning else None,
        )
        record.worker = None
        record.update(
            state="QUEUED",
            start_time=None,
            progress=Progress(bytes_total=record.job.plan.source_bytes),
        )

    def _finish(self, record: JobRecord) -> None:
        end, cause = time.time(), record.stored.stop_cause
        if record.job.result is not None:
            record.update(state="SUCCEEDED", end_time=end)
        elif cause is not None:
            cancelled = cause.reason == "CANCELLED"
            record.update(state="CANCELLED" if cancelled else "FAILED", end_time=end, error=cause)
        else:
            record.update(state="FAILED", end_time=end, error=record.failure)
        job, worker = record.job, record.worker
        self._log(
            "job.ended",
            **record.log_fields,
            state=job.state,
            reason=job.error.reason if job.error else None,
            seconds=round(end - job.create_time, 3),
            worker_log=worker.log if worker and job.state == "FAILED" else None,
        )
        self._statistics.add_end(job)
        self._on_end(record)
