"""Runs one job in a worker process: from a work order to a published output."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from quantd_server.calibration.config import CalibrationUsage
from quantd_server.checkpoint.huggingface import HuggingFaceCheckpoint
from quantd_server.checkpoint.opening import Checkpoint, open_checkpoint
from quantd_server.checkpoint.output import (
    Output,
    OutputDirectory,
    OutputFile,
    working_directory,
)
from quantd_server.checkpoint.reading import TensorReader
from quantd_server.engine.background import in_background
from quantd_server.engine.chunks import ChunkWorker, split
from quantd_server.engine.compiling import CompileOrder, prepare_kernels
from quantd_server.engine.events import (
    Evaluation,
    ProgressEvent,
    QuantizationResult,
    StageEvent,
    TensorEvent,
    WarningEvent,
    WorkerEvent,
)
from quantd_server.engine.events import OutputFile as ReportedFile
from quantd_server.engine.fingerprint import headers_digest, source_fingerprint
from quantd_server.engine.finished_tensors import FinishedTensors, can_go_on, output_digest
from quantd_server.engine.needed_kernels import samples
from quantd_server.engine.pipeline import JobCancelled, Pipeline, TaskOutcome
from quantd_server.engine.progress import ModelProgress, ProgressMeter
from quantd_server.engine.provenance import PROVENANCE_FILE, provenance
from quantd_server.engine.resident_memory import largest_bytes
from quantd_server.engine.sealing import write_variable_parts
from quantd_server.engine.specification import WorkOrder, work_options
from quantd_server.engine.summary import ErrorSummary, summarize_types
from quantd_server.errors import CheckpointError, Finding, Severity, quoted
from quantd_server.methods.base import TensorQuantizer, TensorTask, WorkPlan
from quantd_server.methods.registry import ALL_METHODS, BLOCKWISE_METHODS, METHODS

Emit = Callable[[WorkerEvent], None]

CalibratedStep = StageEvent | CalibrationUsage | TaskOutcome | Evaluation | WarningEvent
"""What ``CalibratedWork.steps`` gives."""


class JobRun:
    """One job. ``emit`` gets its events; setting ``cancelled`` stops it within a chunk."""

    def __init__(self, order: WorkOrder, emit: Emit, cancelled: threading.Event) -> None:
        self._order = order
        self._emit = emit
        self._cancelled = cancelled
        self._method = ALL_METHODS[order.spec.method.name]
        self._errors = ErrorSummary()
        self._compiling_bytes = 0
        self._calibration: CalibrationUsage | None = None
        self._evaluation: Evaluation | None = None
        self._non_finite: dict[str, int] = {}
        """First element that is not finite, by tensor, of those that are solved."""
        self._finished: FinishedTensors | None = None

    def run(self) -> None:
        """Do the job and emit its result.

        Raises QuantdError or JobCancelled. Nothing is left behind then, but for what another worker
        can go on with, where that is wanted and the job was stopped.
        """
        started = time.monotonic()
        self._emit(StageEvent(stage="PREPARING"))
        checkpoint, work = self._plan()
        with (
            _made(Path(self._order.output_path).parent),
            self._create_output(work) as output,
            TensorReader(checkpoint.directory) as reader,
        ):
            try:
                files, outcomes = self._make(checkpoint, work, reader, output)
            except JobCancelled:
                if self._finished is not None:
                    self._finished.sync()
                    output.detach()
                raise

            def result() -> QuantizationResult:
                return self._result(work, outcomes, files, time.monotonic() - started)

            if self._order.recoverable:
                output.commit(receipt=lambda: msgspec.json.encode(result()))
            else:
                output.commit()
        self._emit(result())

    def _make(
        self, checkpoint: Checkpoint, work: WorkPlan, reader: TensorReader, output: Output
    ) -> tuple[tuple[ReportedFile, ...], list[TaskOutcome]]:
        """Write all files of the output."""
        for file in work.files:
            output.create(file.name, file.size)
            output.write_at(file.name, 0, file.header)
        self._prepare_kernels(work)
        worker = ChunkWorker(reader, output, allow_non_finite=self._order.spec.allow_non_finite)
        meter = ProgressMeter(
            tensors_total=sum(bool(task.parts) for task in work.tasks),
            bytes_total=sum(task.source_bytes for task in work.tasks if task.parts),
        )
        self._check_finite(work, worker, meter)
        self._emit(StageEvent(stage="QUANTIZING"))
        outcomes = list(self._quantize(work, worker, meter))
        if self._method.calibrated:
            outcomes += self._calibrate(checkpoint, work, reader, worker, output, meter)
        self._emit(StageEvent(stage="FINALIZING"))
        work = write_variable_parts(work, worker.variable_parts, output)
        reader.check_unchanged()
        files = self._finalize(checkpoint, work, outcomes, output)
        self._check_source(checkpoint)  # small files were read, too, some of them only now
        if self._cancelled.is_set():
            raise JobCancelled
        return files, outcomes

    def _plan(self) -> tuple[Checkpoint, WorkPlan]:
        """The same plan that was made before the job was accepted, made again from the headers."""
        order = self._order
        checkpoint = open_checkpoint(Path(order.source_path))
        self._check_source(checkpoint)
        options = work_options(order.spec, order.output_path, order.paths)
        return checkpoint, self._method.prepare(order.spec.method.value, checkpoint, options)

    def _check_source(self, checkpoint: Checkpoint) -> None:
        """Raises SOURCE_CHANGED when a file is no longer the one that was planned with."""
        try:
            unchanged = source_fingerprint(checkpoint) == self._order.source_fingerprint
        except OSError:  # it is gone
            unchanged = False
        if not unchanged:
            raise CheckpointError(
                reason="SOURCE_CHANGED",
                kind="precondition",
                message="the source has changed since the job was planned",
                remedy="let it rest, and submit the job again",
            )

    def _create_output(self, work: WorkPlan) -> Output:
        kind = OutputFile if self._method.single_file else OutputDirectory
        final, job_id = Path(self._order.output_path), self._order.job_id
        if not self._order.recoverable:
            return kind(final, job_id)
        digest = output_digest(self._order, work)
        output = kind(final, job_id, resume=can_go_on(working_directory(final, job_id), digest))
        self._finished = FinishedTensors(output, digest)
        return output

    def _prepare_kernels(self, work: WorkPlan) -> None:
        spec = self._order.spec
        order = CompileOrder(
            method=spec.method, device=spec.device or "CPU", samples=samples(work.tasks)
        )
        self._compiling_bytes = prepare_kernels(order, self._cancelled)

    def _check_finite(self, work: WorkPlan, worker: ChunkWorker, meter: ProgressMeter) -> None:
        """Look at the weights that will be solved: in the middle of the model it would be late to
        learn that one of them is not finite.
        """
        for task in work.tasks:
            if task.block is None or task.source is None:
                continue
            for chunk in split(task, None):
                if self._cancelled.is_set():
                    raise JobCancelled
                bad = worker.check(task, chunk)
                if bad >= 0:
                    self._non_finite.setdefault(task.source.name, bad)
                if meter.due():
                    self._emit(ProgressEvent(progress=meter.progress("PREPARING")))

    def _quantizer(self, task: TensorTask) -> TensorQuantizer:
        spec = self._order.spec
        method = METHODS[spec.method.name]
        return method.quantizer(spec.method.value, task, spec.device or "CPU")

    def _quantize(
        self, work: WorkPlan, worker: ChunkWorker, meter: ProgressMeter
    ) -> Iterator[TaskOutcome]:
        """Do the tensors that need nothing but themselves."""
        tasks = [task for task in work.tasks if task.parts and task.block is None]
        earlier = self._finished.earlier if self._finished else {}

        def count(nbytes: int) -> None:
            meter.add_bytes(nbytes)
            if meter.due():
                self._emit(ProgressEvent(progress=meter.progress("QUANTIZING")))

        pipeline = Pipeline(
            worker,
            self._quantizer,
            threads=self._order.threads,
            cancelled=self._cancelled,
            on_bytes=count,
        )
        for task in tasks:
            if task.target_name in earlier:
                worker.take_over(task, earlier[task.target_name].contents)
                meter.add_bytes(task.source_bytes)
                yield self._account(earlier[task.target_name].outcome(task), worker, meter)
        for outcome in pipeline.run(task for task in tasks if task.target_name not in earlier):
            if self._finished is not None:
                self._finished.add(outcome, worker.variable_parts)
            yield self._account(outcome, worker, meter)

    def _account(
        self, outcome: TaskOutcome, worker: ChunkWorker, meter: ProgressMeter
    ) -> TaskOutcome:
        outcome = msgspec.structs.replace(outcome, task=worker.as_written(outcome.task))
        meter.add_tensor()
        self._errors.add(outcome)
        self._report(outcome, meter)
        return outcome

    def _calibrate(
        self,
        checkpoint: Checkpoint,
        work: WorkPlan,
        reader: TensorReader,
        worker: ChunkWorker,
        output: Output,
        meter: ProgressMeter,
    ) -> list[TaskOutcome]:
        """Do the tensors that need calibration data, and measure the result."""
        assert isinstance(checkpoint, HuggingFaceCheckpoint)
        method = BLOCKWISE_METHODS[self._order.spec.method.name]
        state = ModelProgress()
        meter.follow(state)

        def steps() -> Iterator[CalibratedStep]:
            from quantd_server.engine.calibrated import CalibratedWork  # torch comes with it

            work_of_model = CalibratedWork(
                self._order, method, checkpoint, reader, output, state, self._cancelled
            )
            yield from work_of_model.steps(work, worker)

        def tick() -> None:
            if self._cancelled.is_set():
                raise JobCancelled
            if meter.due():
                self._emit(ProgressEvent(progress=meter.progress(state.stage)))

        outcomes = []
        for step in in_background(steps(), tick):
            match step:
                case StageEvent() | WarningEvent():
                    self._emit(step)
                case CalibrationUsage():
                    self._calibration = step
                case Evaluation():
                    self._evaluation = step
                case TaskOutcome():
                    name = step.task.source.name if step.task.source else ""
                    outcome = msgspec.structs.replace(
                        step, first_nonfinite=self._non_finite.get(name, -1)
                    )
                    meter.add_tensor()
                    meter.add_bytes(outcome.task.source_bytes)
                    self._errors.add(outcome)
                    self._report(outcome, meter)
                    outcomes.append(outcome)
        return outcomes

    def _report(self, outcome: TaskOutcome, meter: ProgressMeter) -> None:
        task = outcome.task
        if outcome.first_nonfinite >= 0:
            self._emit(WarningEvent(warning=_non_finite(outcome)))
        for warning in outcome.warnings:
            self._emit(WarningEvent(warning=warning))
        self._emit(
            TensorEvent(
                name=task.target_name,
                shape=task.shape,
                source_type=task.source.dtype if task.source else "",
                target_type=task.target_type,
                size_bytes=task.target_bytes,
                relative_error=outcome.relative_error,
                progress=meter.progress("QUANTIZING"),
                output_error=outcome.output_error,
                rounding_output_error=outcome.rounding_output_error,
                block_output_error=outcome.block_output_error,
                untuned_block_output_error=outcome.untuned_block_output_error,
            )
        )

    def _finalize(
        self,
        checkpoint: Checkpoint,
        work: WorkPlan,
        outcomes: list[TaskOutcome],
        output: Output,
    ) -> tuple[ReportedFile, ...]:
        """Write the small files and describe everything that was written."""
        for name in work.carried:
            output.copy_in(checkpoint.directory / name, name)
        for name, text in work.texts.items():
            output.write_text(name, text)
        names = [file.name for file in work.files]
        with ThreadPoolExecutor(self._order.threads) as pool:
            weights = tuple(pool.map(lambda name: _reported(output, name), names))
        sidecar = PROVENANCE_FILE
        if self._method.single_file:
            sidecar = f"{Path(self._order.output_path).name}.{PROVENANCE_FILE}"
        output.write_text(
            sidecar,
            provenance(
                self._order,
                work,
                outcomes,
                weights,
                headers_digest(checkpoint),
                calibration=self._calibration,
                evaluation=self._evaluation,
            ),
        )
        small = sorted({*work.carried, *work.texts, sidecar})
        return weights + tuple(_reported(output, name) for name in small)

    def _result(
        self,
        work: WorkPlan,
        outcomes: list[TaskOutcome],
        files: tuple[ReportedFile, ...],
        elapsed: float,
    ) -> QuantizationResult:
        weights = {file.name for file in work.files}
        output_bytes = sum(file.size_bytes for file in files if file.name in weights)
        elements = sum(task.element_count for task in work.tasks if task.source)
        return QuantizationResult(
            output_uri=self._order.spec.output_uri,
            files=files,
            types=summarize_types(outcome.task for outcome in outcomes),
            source_bytes=sum(task.source_bytes for task in work.tasks),
            output_bytes=output_bytes,
            bits_per_weight=8 * output_bytes / max(1, elements),
            relative_error=self._errors.relative_error,
            worst_tensor=self._errors.worst_tensor,
            worst_relative_error=self._errors.worst_relative_error,
            elapsed=elapsed,
            peak_memory_bytes=max(largest_bytes(), self._compiling_bytes),
            calibration=self._calibration,
            evaluation=self._evaluation,
        )


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Makes the folder, with its parents; on an error, those that were made go again."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    with contextlib.suppress(OSError):  # the output says what is wrong
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # somebody put files of their own there
            for path in missing:
                path.rmdir()
        raise


def _reported(output: Output, name: str) -> ReportedFile:
    return ReportedFile(
        name=name, size_bytes=output.path(name).stat().st_size, sha256=output.sha256(name)
    )


def _non_finite(outcome: TaskOutcome) -> Finding:
    source = outcome.task.source
    name = source.name if source else outcome.task.target_name
    kept = outcome.task.action == "KEEP"
    return Finding(
        severity=Severity.WARNING,
        field="",
        reason="NON_FINITE_WEIGHTS",
        message=f"tensor {quoted(name)} holds values that are not finite, the first at element "
        f"{outcome.first_nonfinite}; they were {'kept' if kept else 'replaced by zero'}",
        remedy="repair the checkpoint",
        kind="precondition",
        subjects=(name,),
        subject_count=1,
    )
