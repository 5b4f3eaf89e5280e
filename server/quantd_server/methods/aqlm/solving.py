"""AQLM in a worker: each linear on its own, in the order of the data, then the block as a whole
(worker only).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from quantd_server.kernels.aqlm.additive_code import AdditiveCode
from quantd_server.kernels.aqlm.packing import pack_codes, unpack_codes
from quantd_server.kernels.aqlm.solver import LARGEST, SolverSettings, solve
from quantd_server.kernels.output_error import error_ratio
from quantd_server.methods.aqlm.tuning import TuningSettings, block_values, tune
from quantd_server.methods.base import TensorTask
from quantd_server.methods.blockwise import (
    Contents,
    InputStatistics,
    JobContext,
    MakeQuantizer,
    QuantizedLinear,
    Read,
    Stage,
    TunableBlock,
    TunedBlock,
    TunedLinear,
)
from quantd_server.methods.configs import AqlmConfig
from quantd_server.methods.rescaling import stored
from quantd_server.methods.solved_linear import (
    FEWEST_TOKENS,
    indefinite,
    measured,
    saturated,
    undersampled,
)

_BLIND = "quantized as if all its inputs were alike"


def block_quantizers(config: AqlmConfig, context: JobContext) -> MakeQuantizer:
    """As ``methods.blockwise.BlockwiseMethod`` has it."""
    settings = solver_settings(config, context.seed)
    tuning = tuning_settings(config, context.seed)

    def make(tasks: Sequence[TensorTask], read: Read) -> AqlmBlock:
        return AqlmBlock(settings, tuning, tasks, read, context)

    return make


class AqlmBlock:
    """A ``methods.blockwise.BlockQuantizer``."""

    def __init__(
        self,
        settings: SolverSettings,
        tuning: TuningSettings,
        tasks: Sequence[TensorTask],
        read: Read,
        context: JobContext,
    ) -> None:
        self._settings = settings
        self._tuning = tuning
        self._tasks = {task.source.name: task for task in tasks if task.source}
        self._read = read
        self._context = context
        self._codes: dict[str, AdditiveCode] = {}
        self._others: dict[str, torch.Tensor] = {}
        """Tuned parameters that are not quantized, as they are stored."""

    def quantize(self, stage: Stage) -> Iterator[QuantizedLinear]:
        """Solve the linears of a stage."""
        for group in stage.groups:
            statistics = group.statistics()
            for name in group.names:
                yield self._solve(name, stage.weight(name), statistics)

    def tune(self, block: TunableBlock) -> TunedBlock:
        """Tune all codes of the block, and what else its tasks change."""
        changed = {name: task for name, task in self._tasks.items() if task.action != "QUANTIZE"}
        others = {name: self._read(task) for name, task in changed.items()}
        used = {name: value for name, value in others.items() if name in block.parameters}
        tuned = tune(block, self._codes, used, self._tuning, self._context.check_cancelled)
        self._codes, self._others = dict(tuned.codes), others | dict(tuned.others)
        found, linears = block.finish(block_values(tuned.codes, tuned.others))
        return TunedBlock(
            linears={
                name: TunedLinear(
                    squared_error=self._squared_error(name),
                    output_error=error_ratio(errors.squared_error, errors.energy),
                )
                for name, errors in linears.items()
            },
            untuned_error=error_ratio(tuned.untuned.squared_error, tuned.untuned.energy),
            error=error_ratio(found.squared_error, found.energy),
        )

    def finish(self) -> Iterator[tuple[TensorTask, Contents]]:
        """The contents of the block's tensors."""
        for name, task in self._tasks.items():
            if task.action == "QUANTIZE":
                yield task, pack(self._codes.pop(name), self._settings.nbits_per_codebook)
            else:
                yield task, [stored(self._others.pop(name), task)]

    def _squared_error(self, name: str) -> float:
        task = self._tasks[name]
        source = self._read(task).to(torch.float32)
        source = source.T if task.transform == "transpose" else source
        difference = self._codes[name].decode().sub_(source)
        return float(torch.linalg.vector_norm(difference, dtype=torch.float64)) ** 2

    def _solve(
        self, name: str, weight: torch.Tensor, statistics: InputStatistics
    ) -> QuantizedLinear:
        task = self._tasks[f"{name}.weight"]
        gram = statistics.gram
        warnings = []
        blind = statistics.tokens < FEWEST_TOKENS
        if blind:
            warnings.append(undersampled(name, statistics.tokens, _BLIND))
        elif not bool(torch.isfinite(gram).all()):
            blind = True
            warnings.append(
                indefinite(name, "finite", _BLIND, "look at the checkpoint for weights too large")
            )
        source, rows = representable(weight, self._settings.out_group_size)
        if rows:
            warnings.append(saturated(name, f"{rows} rows"))
        solution = solve(
            source,
            gram,
            self._settings,
            blind=blind,
            threads=self._context.threads,
            after_epoch=self._context.check_cancelled,
        )
        self._codes[f"{name}.weight"] = solution.code
        return measured(
            task,
            weight,  # a copy of its own, not needed any more
            solution.code.decode(),
            gram,
            rounding_error=solution.initial_squared_error,
            warnings=tuple(warnings),
        )


def solver_settings(config: AqlmConfig, seed: int) -> SolverSettings:
    """Those of a resolved configuration."""
    values = {
        name: getattr(config, name)
        for name in SolverSettings.__dataclass_fields__
        if name in config.__struct_fields__
    }
    return SolverSettings(**values, seed=seed)


def tuning_settings(config: AqlmConfig, seed: int) -> TuningSettings:
    """Those of a resolved configuration."""
    values = {
        name: getattr(config, f"finetune_{name}")
        for name in TuningSettings.__dataclass_fields__
        if name != "seed"
    }
    return TuningSettings(**values, seed=seed)


def representable(weight: torch.Tensor, out_group: int) -> tuple[torch.Tensor, int]:
    """The weight with the largest values of its groups of rows cut off where their norm is no
    float16, and the number of such groups.
    """
    rows = weight.unflatten(0, (-1, out_group)).flatten(1)
    too_large = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64) > LARGEST
    count = int(too_large.sum())
    if not count:
        return weight, 0
    limit = LARGEST / math.sqrt(rows.shape[1])
    limits = torch.where(too_large, limit, math.inf).to(weight.dtype)
    limits = limits.repeat_interleave(out_group).unsqueeze(1)
    return weight.clamp(-limits, limits), count


def pack(code: AdditiveCode, bits: int) -> Contents:
    """The parts of ``aqlm.method.stored_tensors``."""
    return (
        pack_codes(code.codes.cpu().numpy(), bits),
        np.ascontiguousarray(code.codebooks.cpu().numpy().astype(np.float16)),
        code.scales.cpu().numpy().astype(np.float16).reshape(-1, 1, 1, 1),
    )


def dequantize(task: TensorTask, contents: Contents) -> torch.Tensor:
    """The weight float32 [out, in] that readers compute with."""
    codes, codebooks, scales = (
        np.asarray(data).reshape(part.shape)
        for data, part in zip(contents, task.parts, strict=True)
    )
    return AdditiveCode(
        codes=torch.from_numpy(unpack_codes(codes)),
        codebooks=torch.from_numpy(codebooks.astype(np.float32)),
        scales=torch.from_numpy(scales.astype(np.float32).reshape(-1)),
    ).decode()
