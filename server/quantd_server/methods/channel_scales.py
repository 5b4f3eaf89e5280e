"""Choosing the scales of input channels for linears that may see different tokens (worker only).

The linears after an attention norm see the same input. The experts after an MLP norm share the
norm, and so the scales, but each sees its own tokens: their errors add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from quantd_server.kernels.awq.scales import (
    candidate_errors,
    scale_candidates,
    weight_magnitude,
)
from quantd_server.methods.blockwise import InputStatistics
from quantd_server.methods.linear_solver import LinearSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleSettings:
    """Arguments of the search; see ``kernels.awq.scales``."""

    n_grid: int
    duo_scaling: bool | None
    """None for the better of both."""
    max_rows: int = 256
    """Rows of the weights that the search looks at."""

    @property
    def formulas(self) -> tuple[bool, ...]:
        """With and without the weights."""
        return (True, False) if self.duo_scaling is None else (self.duo_scaling,)


Inputs = Callable[[], Iterable[tuple[list[torch.Tensor], InputStatistics]]]
"""Weights, float32 [out, in], and the statistics of their input, group by group."""


def choose_scales(
    inputs: Inputs, scales: ScaleSettings, linear: LinearSettings, *, fewest_tokens: int
) -> torch.Tensor | None:
    """The scales float32 [in] with the least error in all outputs together.

    ``inputs`` is gone through twice. None when fewer than ``fewest_tokens`` reach it in all: what
    is best for a handful of tokens is worse than no scaling for others.
    """
    activation, magnitude, tokens = _shared_magnitudes(inputs, linear.group_size)
    if tokens < fewest_tokens:
        return None
    candidates = [
        candidate
        for _, candidate in scale_candidates(
            activation, magnitude, n_grid=scales.n_grid, duo_scaling=scales.formulas
        )
    ]
    errors = [0.0] * len(candidates)
    for weights, statistics in inputs():
        found = candidate_errors(
            weights,
            statistics.gram,
            candidates,
            bits=linear.bits,
            group_size=linear.group_size,
            sym=linear.sym,
            max_rows=scales.max_rows,
        )
        errors = [total + error for total, error in zip(errors, found, strict=True)]
    return candidates[min(range(len(errors)), key=errors.__getitem__)]


def _shared_magnitudes(inputs: Inputs, group_size: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Mean magnitudes of the activations over all tokens, and of the weights over all rows; and
    the number of tokens.
    """
    activation, magnitude = torch.zeros(()), torch.zeros(())
    tokens = rows = 0
    for weights, statistics in inputs():
        count = sum(weight.shape[0] for weight in weights)
        activation = activation + statistics.mean_abs * statistics.tokens
        magnitude = magnitude + weight_magnitude(weights, group_size) * count
        tokens += statistics.tokens
        rows += count
    return activation / max(1, tokens), magnitude / max(1, rows), tokens
