"""What a calibrated job does besides copying tensors: read its data, solve the blocks, and measure
the result (worker only: imports torch).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Iterator, Sequence

import msgspec
import torch

from quantd_server.calibration.activations import ActivationStore
from quantd_server.calibration.config import CalibrationUsage, EvaluationConfig
from quantd_server.calibration.data import TokenData, read_calibration, read_evaluation
from quantd_server.calibration.evaluation import Evaluation as Comparing
from quantd_server.calibration.memory import ACTIVATION_BYTES
from quantd_server.calibration.model import BlockwiseModel
from quantd_server.calibration.packing import Tokens
from quantd_server.calibration.parameters import CheckpointParameters
from quantd_server.checkpoint.huggingface import HuggingFaceCheckpoint
from quantd_server.checkpoint.output import Output
from quantd_server.checkpoint.reading import TensorReader
from quantd_server.engine.allocator import return_free_memory, separate_large_tensors
from quantd_server.engine.blockwise import BlockwiseRun
from quantd_server.engine.chunks import ChunkWorker
from quantd_server.engine.events import Evaluation, Stage, StageEvent, WarningEvent
from quantd_server.engine.finished_tensors import output_digest
from quantd_server.engine.pipeline import JobCancelled, TaskOutcome
from quantd_server.engine.progress import ModelProgress
from quantd_server.engine.result_parameters import ResultParameters
from quantd_server.engine.solved_blocks import Conditions, SolvedBlocks, machine
from quantd_server.engine.specification import WorkOrder
from quantd_server.errors import Finding, QuantdError, Severity
from quantd_server.host.cpu import describe_cpu
from quantd_server.host.system import this_system
from quantd_server.methods.base import TensorTask, WorkPlan
from quantd_server.methods.blockwise import BlockwiseMethod

BF16_FEATURES = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Of processors that multiply bfloat16."""


class CalibratedWork:
    """The part of a job that runs the model; ``state`` follows it."""

    def __init__(
        self,
        order: WorkOrder,
        method: BlockwiseMethod,
        checkpoint: HuggingFaceCheckpoint,
        reader: TensorReader,
        output: Output,
        state: ModelProgress,
        cancelled: threading.Event,
    ) -> None:
        self._order = order
        self._method = method
        self._checkpoint = checkpoint
        self._reader = reader
        self._output = output
        self._state = state
        self._cancelled = cancelled
        self._device = device_of(order.spec.device)
        torch.set_num_threads(order.threads)
        separate_large_tensors()

    def steps(
        self, work: WorkPlan, worker: ChunkWorker
    ) -> Iterator[StageEvent | CalibrationUsage | TaskOutcome | Evaluation | WarningEvent]:
        """All of it: stages as they are entered, tensors as they are done, and what was measured.

        Raises JobCancelled, and what reading data and tensors raises.
        """
        yield self._enter("CALIBRATING")
        data = self._read_data()
        return_free_memory()  # a text's tokens take many times its size while they are made
        yield data.usage
        yield self._enter("QUANTIZING")
        solved = self._record(work, data) if self._order.recoverable else None
        if solved is not None and solved.warning is not None:
            yield WarningEvent(warning=solved.warning)
        tasks = [task for task in work.tasks if task.block is not None]
        yield from self._solve(tasks, data.sequences, worker, solved)
        if self._order.spec.evaluation is not None:
            yield self._enter("EVALUATING")
            yield self._evaluate(work, self._order.spec.evaluation)

    def _enter(self, stage: Stage) -> StageEvent:
        self._state.enter(stage)
        return StageEvent(stage=stage)

    def _read_data(self) -> TokenData:
        config = self._order.spec.calibration
        assert config is not None
        data = read_calibration(config, self._checkpoint.directory, self._order.paths)
        if self._order.calibration_sha256 not in ("", data.usage.sha256):
            raise _data_changed()
        return data

    def _record(self, work: WorkPlan, data: TokenData) -> SolvedBlocks:
        conditions = Conditions(
            output=output_digest(self._order, work),
            calibration=data.usage.sha256,
            threads=self._order.threads,
            machine=machine(),
        )
        return SolvedBlocks(self._output, conditions)

    def _solve(
        self,
        tasks: Sequence[TensorTask],
        sequences: Sequence[Tokens],
        worker: ChunkWorker,
        solved: SolvedBlocks | None,
    ) -> Iterator[TaskOutcome]:
        features = describe_cpu(this_system()).features
        with self._store() as store:
            run = BlockwiseRun(
                method=self._method,
                spec=self._order.spec,
                checkpoint=self._checkpoint,
                reader=self._reader,
                worker=worker,
                sequences=[_tensor(tokens) for tokens in sequences],
                store=store,
                device=self._device,
                threads=self._order.threads,
                bf16_products=multiplies_bf16_faster(self._device, features),
                check_cancelled=self._check_cancelled,
                on_progress=self._state.set_blocks,
                on_earlier=self._state.go_on,
                solved=solved,
            )
            yield from run.outcomes(tasks)

    def _evaluate(self, work: WorkPlan, config: EvaluationConfig) -> Evaluation | WarningEvent:
        data = read_evaluation(config, self._checkpoint.directory, self._order.paths)
        sequences = [_tensor(tokens) for tokens in data.sequences if len(tokens) > 1]
        if not sequences:
            return WarningEvent(warning=_nothing_to_predict())
        source = CheckpointParameters(self._checkpoint, self._reader)
        result = ResultParameters(work, self._method, self._order.spec.method.value, self._output)
        with self._store() as store:
            found = Comparing(
                BlockwiseModel(self._checkpoint.config, source, device=self._device),
                BlockwiseModel(self._checkpoint.config, result, device=self._device),
                sequences,
                store=store,
                on_progress=self._on_evaluated,
                check_cancelled=self._check_cancelled,
            ).run()
        if not all(map(math.isfinite, msgspec.structs.astuple(found))):
            return WarningEvent(warning=_not_measurable())
        return Evaluation(
            source_perplexity=found.source_perplexity,
            perplexity=found.perplexity,
            kl_divergence=found.kl_divergence,
            top_token_agreement=found.top_token_agreement,
            tokens=found.tokens,
        )

    def _on_evaluated(self, fraction: float) -> None:
        self._state.set_fraction(fraction)
        return_free_memory()

    def _store(self) -> ActivationStore:
        return ActivationStore(ACTIVATION_BYTES, self._output.working, self._device)

    def _check_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise JobCancelled


def device_of(kind: str | None) -> str:
    """Torch's name of a kind of device."""
    return "cuda" if kind in ("CUDA", "ROCM") else "cpu"


def multiplies_bf16_faster(device: str, cpu_features: Collection[str]) -> bool:
    """Whether products of bfloat16 are faster on the device than those of float32.

    ``cpu_features``: as ``host.cpu`` spells them.
    """
    if device != "cpu":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Without such instructions they take up to five times as long.
    return not BF16_FEATURES.isdisjoint(cpu_features)


def _tensor(tokens: Tokens) -> torch.Tensor:
    return torch.tensor(tokens, dtype=torch.int64)


def _data_changed() -> QuantdError:
    return QuantdError(
        reason="CALIBRATION_CHANGED",
        field="spec.calibration",
        message="the calibration data has changed since the job was planned",
        remedy="let the file and the checkpoint's tokenizer rest, and submit the job again",
        kind="precondition",
    )


def _nothing_to_predict() -> Finding:
    return Finding(
        severity=Severity.WARNING,
        field="spec.evaluation",
        reason="EVALUATION_TOO_SHORT",
        message="no sequence to measure on has two tokens, so that nothing could be measured",
        remedy="give longer texts",
        kind="invalid",
    )


def _not_measurable() -> Finding:
    return Finding(
        severity=Severity.WARNING,
        field="spec.evaluation",
        reason="EVALUATION_NOT_FINITE",
        message="the logits of the model before or after quantization are not finite, so that "
        "nothing could be measured",
        remedy="check the checkpoint for weights that are not finite, or too large",
        kind="precondition",
    )
