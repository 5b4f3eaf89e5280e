"""The bounded pipeline: a few chunks in flight, on all cores, whatever the size of the model.

Reading, quantizing and writing a chunk is one piece of work for one thread: the kernels and the
system calls release the interpreter lock, so threads overlap one chunk's I/O with another's
arithmetic. Nothing waits in queues, and memory is a constant times the number of threads.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import msgspec
import numpy as np

from quantd_server.engine.chunks import ChunkOutcome, ChunkWorker, split
from quantd_server.engine.pipeline_sizes import chunks_in_flight
from quantd_server.errors import Finding
from quantd_server.methods.base import TensorQuantizer, TensorTask


class JobCancelled(Exception):
    """The job was asked to stop."""


class TaskOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor that is done."""

    task: TensorTask
    relative_error: float | None
    """sqrt(sum (w - w')^2 / sum w^2); None when nothing was rounded."""
    squared_error: float
    squared_sum: float
    first_nonfinite: int
    output_error: float | None = None
    """Of the output on calibration data; set by the methods that calibrate."""
    rounding_output_error: float | None = None
    """The same with plain rounding."""
    block_output_error: float | None = None
    """Of the output of its block, where that was tuned; see ``methods.blockwise.TunedBlock``."""
    untuned_block_output_error: float | None = None
    """The same before."""
    warnings: tuple[Finding, ...] = ()


class _OpenTask:
    """A tensor some of whose chunks are still out."""

    def __init__(self, task: TensorTask, quantizer: TensorQuantizer | None) -> None:
        self.task = task
        self.quantizer = quantizer
        self.pending = 0
        self.all_submitted = False
        # Added up in the end, exactly: chunks finish in an order that differs from run to run, and
        # the record beside the output must not.
        self.squared_errors: list[float] = []
        self.squared_sums: list[float] = []
        self.first_nonfinite = -1

    def add(self, outcome: ChunkOutcome) -> None:
        self.pending -= 1
        self.squared_errors.append(outcome.squared_error)
        self.squared_sums.append(outcome.squared_sum)
        bad = outcome.first_nonfinite
        if bad >= 0 and (self.first_nonfinite < 0 or bad < self.first_nonfinite):
            self.first_nonfinite = bad

    def outcome(self) -> TaskOutcome:
        error = None
        squared_error, squared_sum = math.fsum(self.squared_errors), math.fsum(self.squared_sums)
        if self.quantizer is not None:
            error = math.sqrt(squared_error / squared_sum) if squared_sum else 0.0
        return TaskOutcome(
            task=self.task,
            relative_error=error,
            squared_error=squared_error,
            squared_sum=squared_sum,
            first_nonfinite=self.first_nonfinite,
        )


class Pipeline:
    """Runs tasks on ``threads`` threads."""

    def __init__(
        self,
        worker: ChunkWorker,
        make_quantizer: Callable[[TensorTask], TensorQuantizer],
        *,
        threads: int,
        cancelled: threading.Event,
        on_bytes: Callable[[int], None],
    ) -> None:
        """``on_bytes(n)`` is called in the caller's thread as source bytes are done."""
        self._worker = worker
        self._make_quantizer = make_quantizer
        self._threads = threads
        self._cancelled = cancelled
        self._on_bytes = on_bytes

    def run(self, tasks: Iterable[TensorTask]) -> Iterator[TaskOutcome]:
        """The tasks as they are done, which is in their order unless chunks overtake each other.

        Raises JobCancelled, or the first error of a chunk; nothing is running any more then.
        """
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="chunk")
        pending: dict[Future[ChunkOutcome], _OpenTask] = {}
        done: deque[TaskOutcome] = deque()
        try:
            for task in tasks:
                if task.source is None:
                    done.append(self._generate(task))
                elif task.parts:
                    self._submit(pool, pending, done, task)
                while done:
                    yield done.popleft()
            while pending:
                self._collect(pending, done)
                while done:
                    yield done.popleft()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _submit(
        self,
        pool: ThreadPoolExecutor,
        pending: dict[Future[ChunkOutcome], _OpenTask],
        done: deque[TaskOutcome],
        task: TensorTask,
    ) -> None:
        quantizer = None if task.action == "KEEP" else self._make_quantizer(task)
        opened = _OpenTask(task, quantizer)
        for chunk in split(task, quantizer):
            while len(pending) >= chunks_in_flight(self._threads):
                self._collect(pending, done)
            opened.pending += 1
            if quantizer is None:
                future = pool.submit(self._guarded, self._worker.copy, task, chunk)
            else:
                future = pool.submit(self._guarded, self._worker.quantize, task, chunk, quantizer)
            pending[future] = opened
        opened.all_submitted = True
        self._close_if_done(opened, done)

    def _collect(
        self, pending: dict[Future[ChunkOutcome], _OpenTask], done: deque[TaskOutcome]
    ) -> None:
        """Wait for a chunk and take in what is finished."""
        finished, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
        if self._cancelled.is_set():
            raise JobCancelled
        for future in finished:
            opened = pending.pop(future)
            outcome = future.result()
            opened.add(outcome)
            self._on_bytes(outcome.source_bytes)
            self._close_if_done(opened, done)
        if not finished:
            self._on_bytes(0)

    def _close_if_done(self, opened: _OpenTask, done: deque[TaskOutcome]) -> None:
        if opened.pending or not opened.all_submitted:
            return
        if opened.quantizer is not None:
            result = opened.quantizer.finish()
            self._worker.write(opened.task, result.writes)
            opened.squared_errors.append(result.squared_error)
        done.append(opened.outcome())

    def _generate(self, task: TensorTask) -> TaskOutcome:
        self._worker.write(task, [(0, 0, np.asarray(task.values, np.float32))])
        return _OpenTask(task, None).outcome()

    def _guarded(self, work: Callable[..., ChunkOutcome], *arguments: object) -> ChunkOutcome:
        if self._cancelled.is_set():
            raise JobCancelled
        return work(*arguments)
