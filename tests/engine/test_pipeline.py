"""The pipeline alone: bounded, ended by errors and cancellation, independent of threads."""

from __future__ import annotations

import random
import threading
import time

import numpy as np
import pytest

from quantd_server.checkpoint.safetensors_header import TensorEntry
from quantd_server.engine import chunks, pipeline
from quantd_server.engine.chunks import ChunkOutcome
from quantd_server.engine.pipeline import JobCancelled, Pipeline
from quantd_server.engine.pipeline_sizes import chunks_in_flight
from quantd_server.methods.base import ChunkResult, OutputPart, TensorTask

CHUNK = 64


def task(name: str, elements: int, action: str = "QUANTIZE") -> TensorTask:
    part = OutputPart(
        name=name, dtype="F32", shape=(elements,), file="f", offset=0, nbytes=4 * elements
    )
    entry = TensorEntry(
        name=name, dtype="F32", shape=(elements,), offset=0, nbytes=4 * elements, file="f"
    )
    return TensorTask(
        source=entry,
        target_name=name,
        target_type="Q",
        shape=(elements,),
        action=action,
        reason="a test",
        parts=(part,),
    )


class FakeQuantizer:
    granularity = CHUNK

    def __init__(self) -> None:
        self.finished = 0

    def finish(self) -> ChunkResult:
        self.finished += 1
        return ChunkResult(writes=[])


class FakeWorker:
    """Stands for the chunk worker: takes its time, counts who is there."""

    def __init__(self, work=lambda task, chunk: None) -> None:
        self._work = work
        self._lock = threading.Lock()
        self.active = self.most_active = 0
        self.done: list[tuple[str, int]] = []

    def quantize(self, task, chunk, quantizer) -> ChunkOutcome:
        with self._lock:
            self.active += 1
            self.most_active = max(self.most_active, self.active)
        try:
            self._work(task, chunk)
            self.done.append((task.target_name, chunk.first))
            return ChunkOutcome(source_bytes=4 * chunk.count, squared_sum=1.0)
        finally:
            with self._lock:
                self.active -= 1

    def copy(self, task, chunk) -> ChunkOutcome:
        return self.quantize(task, chunk, None)

    def write(self, task, writes) -> None:
        pass


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", CHUNK)


def run(worker, tasks, *, threads=2, cancelled=None, on_bytes=lambda count: None, quantizer=None):
    return Pipeline(
        worker,
        lambda task: quantizer or FakeQuantizer(),
        threads=threads,
        cancelled=cancelled or threading.Event(),
        on_bytes=on_bytes,
    ).run(tasks)


def test_every_chunk_is_done_once() -> None:
    worker = FakeWorker()
    tasks = [task("a", 1000), task("b", CHUNK, "KEEP"), task("c", 1), task("d", 640)]
    quantizer = FakeQuantizer()
    counted: list[int] = []
    outcomes = list(run(worker, tasks, threads=3, on_bytes=counted.append, quantizer=quantizer))
    assert sorted(outcome.task.target_name for outcome in outcomes) == ["a", "b", "c", "d"]
    assert sorted(worker.done) == sorted(
        (each.target_name, first) for each in tasks for first in range(0, each.element_count, CHUNK)
    )
    assert sum(counted) == sum(each.source_bytes for each in tasks)
    assert quantizer.finished == 3  # what is kept has none
    by_name = {outcome.task.target_name: outcome for outcome in outcomes}
    assert by_name["b"].relative_error is None
    assert by_name["a"].relative_error == 0.0
    assert by_name["a"].squared_sum == 16


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_only_so_many_chunks_are_in_flight(monkeypatch, threads) -> None:
    submitted = returned = most = 0
    real = pipeline.wait

    def observed(pending, **options):
        nonlocal most
        most = max(most, len(pending))
        return real(pending, **options)

    monkeypatch.setattr(pipeline, "wait", observed)
    worker = FakeWorker(lambda task, chunk: time.sleep(0.001))
    list(run(worker, [task("a", 50 * CHUNK), task("b", 50 * CHUNK)], threads=threads))
    assert worker.most_active <= threads
    assert most == chunks_in_flight(threads)
    assert submitted == returned


def test_tasks_are_taken_only_when_there_is_room() -> None:
    gate = threading.Event()
    taken = []

    def tasks():
        for number in range(100):
            taken.append(number)
            yield task(str(number), CHUNK)

    worker = FakeWorker(lambda task, chunk: gate.wait(5))
    threading.Timer(0.2, gate.set).start()
    outcomes = run(worker, tasks(), threads=2)
    next(outcomes)
    # One is finished, those in flight are out, and one waits to go.
    assert len(taken) <= chunks_in_flight(2) + 2
    outcomes.close()


def test_the_first_error_ends_it_and_nothing_runs_any_more() -> None:
    def fail(task, chunk) -> None:
        time.sleep(0.005)
        if task.target_name == "b":
            raise ZeroDivisionError

    worker = FakeWorker(fail)
    with pytest.raises(ZeroDivisionError):
        list(run(worker, [task("a", 640), task("b", 640), task("c", 64_000)], threads=2))
    assert worker.active == 0
    done = len(worker.done)
    time.sleep(0.03)
    assert len(worker.done) == done < 1000


@pytest.mark.parametrize("threads", [1, 3])
def test_cancelling_stops_within_a_chunk(threads) -> None:
    cancelled = threading.Event()

    def work(task, chunk) -> None:
        time.sleep(0.005)
        if chunk.first == 10 * CHUNK:
            cancelled.set()

    worker = FakeWorker(work)
    with pytest.raises(JobCancelled):
        list(run(worker, [task("a", 6400 * CHUNK)], threads=threads, cancelled=cancelled))
    assert worker.active == 0
    assert len(worker.done) <= 11 + threads


def test_cancelling_while_a_chunk_takes_long() -> None:
    cancelled = threading.Event()
    worker = FakeWorker(lambda task, chunk: time.sleep(0.3))
    threading.Timer(0.05, cancelled.set).start()
    started = time.monotonic()
    with pytest.raises(JobCancelled):
        list(run(worker, [task("a", 100 * CHUNK)], threads=2, cancelled=cancelled))
    assert time.monotonic() - started < 1.5


def test_a_reader_that_leaves_early_ends_it() -> None:
    worker = FakeWorker(lambda task, chunk: time.sleep(0.002))
    outcomes = run(worker, [task(str(number), CHUNK) for number in range(1000)], threads=2)
    next(outcomes)
    outcomes.close()
    assert worker.active == 0
    assert len(worker.done) < 50


def test_the_error_does_not_depend_on_the_order_in_which_chunks_end() -> None:
    rng = np.random.default_rng(5)
    errors = {CHUNK * n: float(e) for n, e in enumerate(10.0 ** rng.uniform(-8, 8, 200))}

    class Measuring(FakeWorker):
        def quantize(self, task, chunk, quantizer) -> ChunkOutcome:
            time.sleep(random.random() / 2000)
            error = errors[chunk.first]
            return ChunkOutcome(source_bytes=1, squared_error=error, squared_sum=2 * error)

    def measure(threads):
        (outcome,) = run(Measuring(), [task("a", 200 * CHUNK)], threads=threads)
        return outcome.squared_error, outcome.squared_sum, outcome.relative_error

    assert len({measure(threads) for threads in (1, 2, 3, 4, 4, 4)}) == 1


def test_the_first_value_that_is_not_finite_is_named_in_any_order() -> None:
    class Finding(FakeWorker):
        def quantize(self, task, chunk, quantizer) -> ChunkOutcome:
            time.sleep(0.02 if chunk.first == 0 else 0)
            return ChunkOutcome(source_bytes=1, first_nonfinite=chunk.first + 7)

    (outcome,) = run(Finding(), [task("a", 10 * CHUNK)], threads=2)
    assert outcome.first_nonfinite == 7


def test_generated_tensors_are_written() -> None:
    written = []
    generated = task("a", 4)
    generated = TensorTask(
        **{
            field: getattr(generated, field) for field in ("target_name", "target_type", "parts")
        },
        source=None,
        shape=(3,),
        action="GENERATE",
        reason="a test",
        values=(1.0, 2.5, -3.0),
    )
    worker = FakeWorker()
    worker.write = lambda task, writes: written.extend(writes)
    (outcome,) = run(worker, [generated])
    ((part, offset, data),) = written
    assert (part, offset, data.tobytes()) == (0, 0, np.float32([1, 2.5, -3]).tobytes())
    assert outcome.relative_error is None
