"""Quantizes the linears of a decoder block, for GPTQ and AWQ alike (worker only).

The order is that of the data: for each stage, scales for the input channels are chosen (AWQ), then
every linear is solved with its scaled weight and scaled statistics. Dividing what comes before by
the scales is left to the end of the block: rows of a quantized linear are divided by dividing its
scales, which leaves its codes as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from quantd_server.errors import Finding
from quantd_server.kernels.awq.scales import scaled_gram
from quantd_server.kernels.output_error import squared_output_error
from quantd_server.kernels.uniform_grid import to_stored_scale
from quantd_server.methods.base import TensorTask
from quantd_server.methods.blockwise import (
    Contents,
    InputStatistics,
    LinearGroup,
    QuantizedLinear,
    Read,
    Stage,
)
from quantd_server.methods.channel_scales import ScaleSettings, choose_scales
from quantd_server.methods.linear_solver import (
    LinearSettings,
    QuantizedWeight,
    quantize_linear,
    rounded,
)
from quantd_server.methods.rescaling import divided_norm, rescaled, stored
from quantd_server.methods.scale_folding import Folding
from quantd_server.methods.solved_linear import (
    FEWEST_TOKENS,
    indefinite,
    measured,
    saturated,
    undersampled,
)

_ROUNDED = "rounded to nearest"


@dataclass(frozen=True, kw_only=True)
class BlockSettings:
    """What a method has made of its configuration for one block."""

    linears: Mapping[str, LinearSettings]
    """By module."""
    foldings: Sequence[Folding] = ()
    scales: ScaleSettings | None = None
    """None for no scaling."""


class _Computed:
    """Groups with their statistics, computed at every iteration so that one is in memory."""

    def __init__(self, groups: Sequence[LinearGroup]) -> None:
        self._groups = groups

    def __iter__(self) -> Iterator[tuple[LinearGroup, InputStatistics]]:
        for group in self._groups:
            yield group, group.statistics()


class BlockSolver:
    """A ``methods.blockwise.BlockQuantizer``.

    ``pack`` gives the contents of a task's parts for its quantized weight.
    """

    def __init__(
        self,
        settings: BlockSettings,
        tasks: Sequence[TensorTask],
        read: Read,
        pack: Callable[[TensorTask, QuantizedWeight], Contents],
        *,
        threads: int,
    ) -> None:
        self._settings = settings
        self._tasks = {task.source.name: task for task in tasks if task.source}
        self._read = read
        self._pack = pack
        self._threads = threads
        self._solved: dict[str, QuantizedWeight] = {}
        self._norms: dict[str, torch.Tensor] = {}
        """What norms become, by module, where that is settled with the scales."""
        self._scales: dict[str, torch.Tensor] = {}
        """Scales of the input channels, by module."""
        self._folding_of = {
            module: folding for folding in settings.foldings for module in folding.following
        }

    def quantize(self, stage: Stage) -> Iterator[QuantizedLinear]:
        """Solve the linears of a stage."""
        alone: dict[int, Folding] = {}
        for folding, numbers in self._foldings_in(stage):
            if len(numbers) == 1:
                alone[numbers[0]] = folding
            else:
                groups = [stage.groups[number] for number in numbers]
                self._choose_scales(folding, _Computed(groups), stage)
        for number, group in enumerate(stage.groups):
            statistics = group.statistics()
            if number in alone:
                self._choose_scales(alone[number], [(group, statistics)], stage)
            yield from self._solve_group(group, stage, statistics)

    def _foldings_in(self, stage: Stage) -> Iterator[tuple[Folding, list[int]]]:
        """The foldings whose readers are in the stage, with the numbers of their groups."""
        if self._settings.scales is None:
            return
        members: dict[str, tuple[Folding, list[int]]] = {}
        for number, group in enumerate(stage.groups):
            folding = self._folding_of.get(group.names[0])
            if folding is not None:
                members.setdefault(folding.previous, (folding, []))[1].append(number)
        yield from members.values()

    def _choose_scales(
        self,
        folding: Folding,
        groups: Iterable[tuple[LinearGroup, InputStatistics]],
        stage: Stage,
    ) -> None:
        assert self._settings.scales is not None

        def inputs() -> Iterator[tuple[list[torch.Tensor], InputStatistics]]:
            for group, statistics in groups:
                yield [stage.weight(name) for name in group.names], statistics

        scales = choose_scales(
            inputs,
            self._settings.scales,
            self._settings.linears[folding.following[0]],
            fewest_tokens=FEWEST_TOKENS,
        )
        if scales is None:
            return
        if folding.divided != "ROWS":
            task = self._tasks[f"{folding.previous}.weight"]
            norm, scales = divided_norm(
                self._read(task), scales, plus_one=folding.divided == "NORM_PLUS_ONE"
            )
            self._norms[folding.previous] = norm
        for module in folding.following:
            self._scales[module] = scales

    def _solve_group(
        self, group: LinearGroup, stage: Stage, statistics: InputStatistics
    ) -> Iterator[QuantizedLinear]:
        scales = self._scales.get(group.names[0])
        gram = statistics.gram
        scaled = gram if scales is None else scaled_gram(gram, scales)
        for name in group.names:
            yield self._solve(name, stage.weight(name), scales, gram, scaled, statistics.tokens)

    def _solve(
        self,
        name: str,
        weight: torch.Tensor,
        scales: torch.Tensor | None,
        gram: torch.Tensor,
        scaled: torch.Tensor,
        tokens: int,
    ) -> QuantizedLinear:
        task = self._tasks[f"{name}.weight"]
        settings = self._settings.linears[name]
        rounding_error = _rounding_error(weight, settings, gram)
        source = weight if scales is None else weight * scales
        warnings = []
        if tokens < FEWEST_TOKENS:
            solved = rounded(source, settings)
            warnings.append(undersampled(name, tokens, _ROUNDED))
        else:
            solved = quantize_linear(source, scaled, settings, self._threads)
            if solved.fell_back:
                warnings.append(_fell_back(name))
        if solved.saturated_groups:
            warnings.append(saturated(name, f"{solved.saturated_groups} groups"))
        self._solved[name] = solved
        del source
        effective = solved.dequantize()
        if scales is not None:
            effective.div_(scales)
        return measured(
            task,
            weight,  # a copy of its own, not needed any more
            effective,
            gram,
            rounding_error=rounding_error,
            warnings=tuple(warnings),
        )

    def finish(self) -> Iterator[tuple[TensorTask, Contents]]:
        """The contents of the block's tensors."""
        divisors = {
            folding.previous: (folding, self._scales[folding.following[0]])
            for folding in self._settings.foldings
            if folding.following[0] in self._scales
        }
        for name, task in self._tasks.items():
            module, _, leaf = name.rpartition(".")
            if task.action == "QUANTIZE":
                solved = self._solved.pop(module)
                if module in divisors:
                    solved = _with_divided_rows(solved, *divisors[module])
                yield task, self._pack(task, solved)
            elif leaf == "weight" and module in self._norms:
                yield task, [stored(self._norms[module], task)]
            else:
                value = rescaled(
                    self._read(task),
                    divisors.get(module),
                    self._scales.get(module) if leaf == "weight" else None,
                )
                yield task, [stored(value, task)]


def _rounding_error(weight: torch.Tensor, settings: LinearSettings, gram: torch.Tensor) -> float:
    """The squared error of the output with plain rounding."""
    plain = rounded(weight, settings).dequantize()
    return squared_output_error(plain.sub_(weight), gram)


def _with_divided_rows(
    solved: QuantizedWeight, folding: Folding, divisor: torch.Tensor
) -> QuantizedWeight:
    scales = solved.scales.clone()
    rows = slice(folding.first_row, folding.first_row + folding.channels)
    scales[rows] = to_stored_scale(scales[rows] / divisor.unsqueeze(1))
    return replace(solved, scales=scales)


def _fell_back(name: str) -> Finding:
    return indefinite(
        name,
        "positive definite, whatever the damping",
        _ROUNDED,
        "calibrate with more data, or set a larger damp_percent",
    )
