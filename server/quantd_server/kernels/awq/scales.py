"""AWQ's search for the scales of input channels, on torch tensors. Used by workers only.

Channels that carry large activations are scaled up before rounding, which makes their error
smaller, and the scales are taken back in what produces the inputs. The published search runs the
layer on its calibration tokens for every candidate. The squared error of a linear's output needs
the second moment G of its inputs only: tr(D G Dᵀ) with D = W - Q(W s) / s. That costs columns
instead of tokens products a weight, and keeps no activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from quantd_server.kernels import uniform_grid
from quantd_server.kernels.output_error import squared_output_error

# Rows searched at once; a few temporaries of so many rows of the weights.
_ROWS = 1024

# Scales span at most four decades before they are normalized, as in llm-awq.
_SMALLEST = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelScales:
    """The best scales found: weights are multiplied by them, inputs divided."""

    scales: torch.Tensor
    """float32 [columns], positive."""

    ratio: float
    """Exponent of the activations; 0 with all scales 1 if nothing was better."""

    squared_error: float
    """tr(D G Dᵀ) over all weights, or over the sample of their rows."""

    squared_error_unscaled: float
    """The same with all scales 1."""


def search_scales(
    weights: Sequence[torch.Tensor],
    gram: torch.Tensor,
    activation: torch.Tensor,
    *,
    bits: int,
    group_size: int,
    sym: bool,
    n_grid: int = 20,
    duo_scaling: Sequence[bool] = (True,),
    max_rows: int | None = None,
) -> ChannelScales:
    """Find one set of scales for linears that share their input.

    Candidates are activation**ratio for ratios 0, 1/n_grid … below 1, with duo scaling divided by
    weight**(1 - ratio); see section C of arXiv:2306.00978 and llm-awq's ``auto_scale_block``. No
    scaling is always a candidate.

    Args:
        weights: float32 [rows, columns] each.
        gram: float32 [columns, columns], the second moment of the input; its scale is free.
        activation: float32 [columns], the mean magnitude of each channel.
        n_grid: how many ratios are tried.
        duo_scaling: with, without, or both.
        max_rows: search on so many rows, evenly taken from all weights; all if not given.

    Raises:
        ValueError: Shapes that do not fit.
    """
    columns = gram.shape[0]
    size = uniform_grid.checked_group_size(columns, group_size)
    if any(weight.shape[1:] != (columns,) for weight in weights) or gram.shape[1] != columns:
        shapes = ", ".join(str(tuple(weight.shape)) for weight in weights)
        raise ValueError(f"weights {shapes} do not fit a gram {tuple(gram.shape)}")
    candidates = scale_candidates(
        activation, weight_magnitude(weights, size), n_grid=n_grid, duo_scaling=duo_scaling
    )
    errors = candidate_errors(
        weights,
        gram,
        [scales for _, scales in candidates],
        bits=bits,
        group_size=size,
        sym=sym,
        max_rows=max_rows,
    )
    best = min(range(len(candidates)), key=errors.__getitem__)
    ratio, scales = candidates[best]
    return ChannelScales(
        scales=scales,
        ratio=ratio,
        squared_error=errors[best],
        squared_error_unscaled=errors[0],
    )


def scale_candidates(
    activation: torch.Tensor,
    magnitude: torch.Tensor,
    *,
    n_grid: int,
    duo_scaling: Sequence[bool],
) -> list[tuple[float, torch.Tensor]]:
    """What :func:`search_scales` tries: ratio and scales float32 [columns], no scaling first.

    Args:
        activation: float32 [columns], the mean magnitude of each channel.
        magnitude: float32 [columns]; see :func:`weight_magnitude`.
        n_grid, duo_scaling: see :func:`search_scales`.
    """
    return [(0.0, torch.ones_like(activation))] + [
        (step / n_grid, _candidate(activation, magnitude if duo else None, step / n_grid))
        for duo in duo_scaling
        for step in range(n_grid)
    ]


def candidate_errors(
    weights: Sequence[torch.Tensor],
    gram: torch.Tensor,
    candidates: Sequence[torch.Tensor],
    *,
    bits: int,
    group_size: int,
    sym: bool,
    max_rows: int | None = None,
) -> list[float]:
    """tr(D G Dᵀ) over all weights (or a sample of their rows) for each vector of scales."""
    size = uniform_grid.checked_group_size(gram.shape[0], group_size)
    errors = [0.0] * len(candidates)
    for chunk in _row_chunks(weights, max_rows):
        values = chunk.T.contiguous()
        for index, scales in enumerate(candidates):
            errors[index] += _squared_error(values, gram, scales, bits=bits, size=size, sym=sym)
    return errors


def scaled_gram(gram: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The second moment of inputs divided by scales [columns]."""
    return (gram / scales).div_(scales.unsqueeze(-1))


def weight_magnitude(weights: Sequence[torch.Tensor], group_size: int) -> torch.Tensor:
    """The mean of |w| relative to the largest of its group, over all rows: float32 [columns]."""
    group_size = uniform_grid.checked_group_size(weights[0].shape[1], group_size)
    total = torch.zeros_like(weights[0][0])
    rows = 0
    for weight in weights:
        for chunk in weight.split(_ROWS):
            magnitudes = chunk.abs().unflatten(1, (-1, group_size))
            magnitudes /= magnitudes.amax(dim=2, keepdim=True) + 1e-6
            total += magnitudes.sum(dim=0).flatten()
            rows += chunk.shape[0]
    return total / rows


def _candidate(activation: torch.Tensor, weight: torch.Tensor | None, ratio: float) -> torch.Tensor:
    live = activation > 0.0
    if not bool(live.any()):
        return torch.ones_like(activation)
    # Only proportions count; without units the smallest scale has a meaning.
    scales = (activation / activation.max()) ** ratio
    if weight is not None:
        scales = scales / (weight ** (1.0 - ratio) + _SMALLEST)
    scales = scales.clamp(min=_SMALLEST)
    scales = scales / torch.sqrt(scales[live].max() * scales[live].min())
    # A channel without activations has no say, and no use for a scale.
    return scales.where(live & torch.isfinite(scales), 1.0)


def _row_chunks(weights: Sequence[torch.Tensor], max_rows: int | None) -> list[torch.Tensor]:
    rows = sum(weight.shape[0] for weight in weights)
    step = 1 if max_rows is None else -(-rows // max_rows)
    return [chunk for weight in weights for chunk in weight[::step].split(_ROWS)]


def _squared_error(
    values: torch.Tensor,
    gram: torch.Tensor,
    scales: torch.Tensor,
    *,
    bits: int,
    size: int,
    sym: bool,
) -> float:
    """tr(D G Dᵀ) of weights given as [columns, rows]."""
    scaled = (values * scales.unsqueeze(-1)).unflatten(0, (-1, size))
    grid = uniform_grid.fit(scaled, bits=bits, sym=sym)
    difference = uniform_grid.rounded(scaled, grid, bits).flatten(0, 1)
    difference.div_(scales.unsqueeze(-1)).sub_(values)
    return squared_output_error(difference.T, gram)
