"""One job of a method that calibrates: walk the decoder blocks, solve each, write it (worker only).

Memory holds one block, the statistics of one group of linears and the activations up to a budget,
however deep the model is.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec
import torch

from quantd_server.calibration.activations import ActivationStore
from quantd_server.calibration.architecture import architecture_not_supported
from quantd_server.calibration.block_step import BlockStep
from quantd_server.calibration.model import BlockwiseModel
from quantd_server.calibration.parameters import CheckpointParameters
from quantd_server.calibration.walk import BlockWalk
from quantd_server.checkpoint.huggingface import HuggingFaceCheckpoint
from quantd_server.checkpoint.reading import TensorReader
from quantd_server.engine.allocator import return_free_memory
from quantd_server.engine.chunks import ChunkWorker, not_finite
from quantd_server.engine.output_head import OutputHead
from quantd_server.engine.pipeline import TaskOutcome
from quantd_server.engine.solved_blocks import SolvedBlocks
from quantd_server.engine.specification import QuantizationSpec
from quantd_server.errors import quoted
from quantd_server.methods.base import TensorTask
from quantd_server.methods.blockwise import (
    BlockQuantizer,
    BlockwiseMethod,
    JobContext,
    QuantizedLinear,
    Stage,
    TunedBlock,
    TuningQuantizer,
)

Progress = Callable[[int, int, float], None]
"""Blocks that are done, blocks in all, and the finished part of the current one."""


class WalkedStage(Stage, Protocol):
    """A stage that goes on with other weights."""

    def replace(self, name: str, weight: torch.Tensor) -> None:
        """Let what follows see ``weight`` [out, in]."""
        ...


class BlockwiseRun:
    """The blocks of one job.

    Args:
        method, spec: What to do.
        checkpoint, reader: The source.
        worker: Writes.
        sequences: Calibration data, int64 [length] each.
        store: Holds activations.
        device: Where blocks are computed; torch's name.
        threads: Threads that compute.
        bf16_products: As in ``BlockWalk``.
        check_cancelled: Raises when the job shall stop.
        on_progress: Told how far it is.
        on_earlier: Told of blocks that were done before, and of those in all.
        solved: What is solved already, and where more is recorded.
    """

    def __init__(
        self,
        *,
        method: BlockwiseMethod,
        spec: QuantizationSpec,
        checkpoint: HuggingFaceCheckpoint,
        reader: TensorReader,
        worker: ChunkWorker,
        sequences: Sequence[torch.Tensor],
        store: ActivationStore,
        device: str,
        threads: int,
        bf16_products: bool,
        check_cancelled: Callable[[], None],
        on_progress: Progress,
        on_earlier: Callable[[int, int], None],
        solved: SolvedBlocks | None,
    ) -> None:
        self._method = method
        self._spec = spec
        self._checkpoint = checkpoint
        self._worker = worker
        self._sequences = sequences
        self._store = store
        self._device = device
        self._threads = threads
        self._bf16_products = bf16_products
        self._check_cancelled = check_cancelled
        self._on_progress = on_progress
        self._on_earlier = on_earlier
        self._solved = solved
        self._parameters = _CheckedParameters(
            checkpoint, reader, allow_non_finite=spec.allow_non_finite
        )

    def outcomes(self, tasks: Sequence[TensorTask]) -> Iterator[TaskOutcome]:
        """Do the tasks, block after block; a tensor is told of when its block is written.

        Those of blocks that an earlier worker solved come first.

        Raises JobCancelled and what reading and writing raise.
        """
        solved = self._solved
        if solved is not None and solved.complete:
            self._on_earlier(solved.blocks, solved.blocks)
            yield from solved.outcomes(tasks)
            return
        by_block: dict[int, list[TensorTask]] = defaultdict(list)
        for task in tasks:
            assert task.block is not None
            by_block[task.block].append(task)
        targets = {
            task.source.name.removesuffix(".weight")
            for task in tasks
            if task.action == "QUANTIZE" and task.source
        }
        config = self._spec.method.value
        make = self._method.block_quantizers(config, self._checkpoint, self._context())
        model = BlockwiseModel(self._checkpoint.config, self._parameters, device=self._device)
        blocks = len(model)
        _check_walked(model, targets)
        done = solved.blocks if solved is not None else 0

        def on_progress(fraction: float) -> None:
            self._on_progress(done, blocks, fraction)

        walk = BlockWalk(
            model,
            self._sequences,
            store=self._store,
            targets=targets,
            sequential=self._method.sequential(config),
            tuning_epochs=self._method.tuning_epochs(config),
            bf16_products=self._bf16_products,
            on_progress=on_progress,
            check_cancelled=self._check_cancelled,
        )
        if solved is not None and done:
            self._on_earlier(done, blocks)
            walk.go_on(done, solved.states())
            yield from solved.outcomes(tasks)
        for block in walk:
            quantizer = make(by_block.get(block.index, []), self._read)
            outcomes = self._do_block(quantizer, block.stages(), block)
            yield from outcomes
            block.finish()
            done = block.index + 1
            on_progress(0.0)
            if solved is not None:
                solved.add(outcomes, walk.all_states())
            return_free_memory()
        outcomes = []
        head = OutputHead(model, walk)
        for number in sorted(by_block.keys() - set(range(blocks))):
            outcomes += self._do_block(make(by_block[number], self._read), head.stages())
        yield from outcomes
        if solved is not None:
            solved.finish(outcomes)

    @torch.inference_mode()
    def _do_block(
        self,
        quantizer: BlockQuantizer,
        stages: Iterator[WalkedStage],
        block: BlockStep | None = None,
    ) -> list[TaskOutcome]:
        """``block``: that of the stages, if it is a decoder block."""
        solved: dict[str, TaskOutcome] = {}
        for stage in stages:
            for linear in quantizer.quantize(stage):
                self._check_cancelled()
                source = linear.task.source
                assert source is not None
                stage.replace(source.name.removesuffix(".weight"), linear.weight)
                solved[source.name] = _outcome(linear.task, linear)  # without the weight
        tunable = block.tunable() if block is not None else None
        tuned = None
        if tunable is not None:
            assert isinstance(quantizer, TuningQuantizer)
            tuned = quantizer.tune(tunable)
        outcomes = []
        for task, contents in quantizer.finish():
            self._check_cancelled()
            self._worker.write(task, [(part, 0, data) for part, data in enumerate(contents)])
            name = task.source.name if task.source else ""
            outcome = solved.get(name) or _outcome(task, None)
            outcomes.append(outcome if tuned is None else _tuned(outcome, name, tuned))
        return outcomes

    def _context(self) -> JobContext:
        calibration = self._spec.calibration
        return JobContext(
            threads=self._threads,
            seed=calibration.seed or 0 if calibration else 0,
            check_cancelled=self._check_cancelled,
        )

    def _read(self, task: TensorTask) -> torch.Tensor:
        assert task.source is not None
        return self._parameters.read(task.source.name).to(self._device)


class _CheckedParameters(CheckpointParameters):
    """Parameters that are finite; others are an error, or zero where that was asked for."""

    def __init__(
        self, checkpoint: HuggingFaceCheckpoint, reader: TensorReader, *, allow_non_finite: bool
    ) -> None:
        super().__init__(checkpoint, reader)
        self._allow_non_finite = allow_non_finite

    def read(self, name: str) -> torch.Tensor:
        return self._checked(name, super().read(name))

    def read_rows(self, name: str, begin: int, end: int) -> torch.Tensor:
        value = super().read_rows(name, begin, end)
        return self._checked(name, value, first=begin * value[:1].numel())

    def _checked(self, name: str, value: torch.Tensor, first: int = 0) -> torch.Tensor:
        """``first``: number of the value's first element in the whole parameter."""
        if bool(torch.isfinite(value).all()):
            return value
        if not self._allow_non_finite:
            flat = value.flatten()
            index = int((~torch.isfinite(flat)).nonzero()[0])
            raise not_finite(name, float(flat[index]), first + index)
        return torch.nan_to_num(value, nan=0.0, posinf=0.0, neginf=0.0)


def _check_walked(model: BlockwiseModel, targets: set[str]) -> None:
    """Every linear that the plan quantizes has to be one that the walk comes to."""
    walked = {name for index in range(len(model)) for name in model.linears(index)}
    missing = sorted(targets - walked - {model.head_name().removesuffix(".weight")})
    if missing:
        raise architecture_not_supported(
            model.model_type,
            f"{quoted(missing[0])} is planned and is not a linear layer of its blocks",
        )


def _outcome(task: TensorTask, linear: QuantizedLinear | None) -> TaskOutcome:
    if linear is None:
        return TaskOutcome(
            task=task, relative_error=None, squared_error=0.0, squared_sum=0.0, first_nonfinite=-1
        )
    ratio = linear.squared_error / linear.squared_sum if linear.squared_sum else 0.0
    return TaskOutcome(
        task=task,
        relative_error=ratio**0.5,
        squared_error=linear.squared_error,
        squared_sum=linear.squared_sum,
        first_nonfinite=-1,
        # Inputs whose squares overflow have no second moment to measure with.
        output_error=_finite(linear.output_error),
        rounding_output_error=_finite(linear.rounding_output_error),
        warnings=linear.warnings,
    )


def _tuned(outcome: TaskOutcome, name: str, block: TunedBlock) -> TaskOutcome:
    """With the errors that its block has brought, and its own after that."""
    outcome = msgspec.structs.replace(
        outcome,
        block_output_error=_finite(block.error),
        untuned_block_output_error=_finite(block.untuned_error),
    )
    linear = block.linears.get(name)
    if linear is None:
        return outcome
    ratio = linear.squared_error / outcome.squared_sum if outcome.squared_sum else 0.0
    return msgspec.structs.replace(
        outcome,
        relative_error=ratio**0.5,
        squared_error=linear.squared_error,
        output_error=_finite(linear.output_error),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
