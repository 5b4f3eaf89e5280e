"""The uniform integer grid that GPTQ and AWQ share, on torch tensors. Used by workers only.

A group of weights has a scale and a zero point; readers compute ``(code - zero) * scale`` with the
scale that the checkpoint stores, a float16. So scales are rounded to float16 here, before any code
is chosen: what is optimized is what will be read.

Groups lie as they do in packed checkpoints, the input dimension before the output dimension:
values are [..., group_size, rows] and every row has a grid of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from quantd_server.kernels.range_search import search_range

LARGEST_SCALE = 65504.0  # the largest float16
SMALLEST_SCALE = 2.0**-24  # the smallest float16 above zero

# Fractions of the full range that the search tries; GPTQ's reference code stops there as well.
SHRINKS = tuple(1.0 - 0.02 * step for step in range(1, 40))


class Grid(NamedTuple):
    """Scales and zero points of groups, float32 [..., rows], ready to be stored.

    Every scale is exactly a float16 and positive, every zero point an integer in 0..2**bits-1.
    """

    scale: torch.Tensor
    zero: torch.Tensor


def largest_code(bits: int) -> int:
    return (1 << bits) - 1


def to_stored_scale(scale: torch.Tensor) -> torch.Tensor:
    """The nearest scale that a float16 holds, as float32, never 0 and never infinite.

    A scale above 65504 becomes 65504, and the group's values are cut off there: see
    :func:`saturated_groups`.
    """
    clamped = scale.clamp(SMALLEST_SCALE, LARGEST_SCALE)
    return clamped.to(torch.float16).to(torch.float32)


def saturated_groups(grid: Grid) -> int:
    """How many groups need a scale beyond float16, so that their largest values are lost."""
    return int((grid.scale >= LARGEST_SCALE).sum())


def fit(
    values: torch.Tensor,
    *,
    bits: int,
    sym: bool,
    mse: float = 0.0,
    importance: torch.Tensor | None = None,
) -> Grid:
    """Fit the grid of every group to its values.

    Symmetric grids reach to the largest magnitude around the middle code; asymmetric ones reach
    from the smallest to the largest value, 0 always included. A group of zeros gets the scale 1.

    Args:
        values: float32 [..., group_size, rows], finite.
        bits: width of a code, 2 to 8.
        sym: whether the zero point is fixed at 2**(bits-1).
        mse: above 0, ranges are shrunk where that lowers the sum of |error|**mse.
        importance: float32 [..., group_size], factors of the errors in that sum.
    """
    low, high = value_range(values, sym=sym)
    grid = grid_of_range(low, high, bits=bits, sym=sym)
    if mse <= 0.0:
        return grid
    if importance is None:
        importance = torch.ones(values.shape[:-1], device=values.device)
    else:
        importance = importance / importance.max().clamp(min=torch.finfo(torch.float32).tiny)
    search = _search if values.device.type == "cpu" else _search_with_torch
    return search(values, low, high, bits=bits, sym=sym, mse=mse, importance=importance)


def value_range(values: torch.Tensor, *, sym: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The smallest and largest values of groups [..., group_size, rows], 0 among them; symmetric
    ranges reach equally far to both sides.
    """
    low = values.amin(dim=-2).clamp_(max=0.0)
    high = values.amax(dim=-2).clamp_(min=0.0)
    if sym:
        high = torch.maximum(high, -low)
        low = -high
    return low, high


def grid_of_range(low: torch.Tensor, high: torch.Tensor, *, bits: int, sym: bool) -> Grid:
    """The grid from ``low`` to ``high``, float32 [..., rows]; an empty range gets the scale 1."""
    # Halves first: the difference of two large float32 values may overflow.
    scale = (high / largest_code(bits)) - (low / largest_code(bits))
    empty = scale == 0.0
    scale = to_stored_scale(scale.masked_fill_(empty, 1.0))
    middle = float(1 << (bits - 1))
    if sym:
        return Grid(scale, torch.full_like(scale, middle))
    zero = torch.round(-low / scale).clamp_(0.0, largest_code(bits))
    return Grid(scale, zero.masked_fill_(empty, middle))


def quantize(values: torch.Tensor, grid: Grid, bits: int) -> torch.Tensor:
    """The nearest codes, uint8 like ``values`` [..., group_size, rows]."""
    return _codes(values, grid, bits).to(torch.uint8)


def dequantize(codes: torch.Tensor, grid: Grid) -> torch.Tensor:
    """What readers compute from codes [..., group_size, rows], in float32."""
    codes = codes.to(torch.float32)
    return (codes - grid.zero.unsqueeze(-2)).mul_(grid.scale.unsqueeze(-2))


def rounded(values: torch.Tensor, grid: Grid, bits: int) -> torch.Tensor:
    """``dequantize(quantize(values))`` in float32, without the codes between."""
    codes = _codes(values, grid, bits)
    return codes.sub_(grid.zero.unsqueeze(-2)).mul_(grid.scale.unsqueeze(-2))


def in_groups(weight: torch.Tensor, group_size: int) -> torch.Tensor:
    """View a weight [out, in] as groups [in / group_size, group_size, out]; -1 is one group.

    Raises:
        ValueError: The group size does not divide the input dimension.
    """
    columns = weight.shape[1]
    size = checked_group_size(columns, group_size)
    return weight.T.unflatten(0, (columns // size, size))


def checked_group_size(columns: int, group_size: int) -> int:
    """The group size in columns; -1 means all of them. Raises ValueError if it doesn't divide."""
    size = columns if group_size == -1 else group_size
    if size < 1 or columns % size:
        raise ValueError(
            f"group_size {group_size} does not divide the input dimension {columns}; "
            "use a divisor of it, or -1"
        )
    return size


def _codes(values: torch.Tensor, grid: Grid, bits: int) -> torch.Tensor:
    codes = (values / grid.scale.unsqueeze(-2)).round_()
    return codes.add_(grid.zero.unsqueeze(-2)).clamp_(0.0, largest_code(bits))


def _search(
    values: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
    *,
    bits: int,
    sym: bool,
    mse: float,
    importance: torch.Tensor,
) -> Grid:
    grid = grid_of_range(low, high, bits=bits, sym=sym)
    size, rows = values.shape[-2:]
    scale, zero = grid.scale.reshape(-1, rows), grid.zero.reshape(-1, rows)
    search_range(
        values.reshape(-1, size, rows).contiguous().numpy(),
        importance.reshape(-1, size).contiguous().numpy(),
        low.reshape(-1, rows).numpy(),
        high.reshape(-1, rows).numpy(),
        np.float32(largest_code(bits)),
        np.float32(1 << (bits - 1) if sym else -1),
        np.float32(mse),
        np.array(SHRINKS, np.float32),
        scale.numpy(),
        zero.numpy(),
    )
    return Grid(scale.view_as(grid.scale), zero.view_as(grid.zero))


def _search_with_torch(
    values: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
    *,
    bits: int,
    sym: bool,
    mse: float,
    importance: torch.Tensor,
) -> Grid:
    best = grid_of_range(low, high, bits=bits, sym=sym)
    best_loss = torch.full_like(best.scale, torch.inf)
    for shrink in (1.0, *SHRINKS):
        grid = grid_of_range(low * shrink, high * shrink, bits=bits, sym=sym)
        errors = rounded(values, grid, bits).sub_(values).abs_()
        errors = errors.square_() if mse == 2.0 else errors.pow_(mse)
        loss = errors.mul_(importance.unsqueeze(-1)).sum(dim=-2)
        better = loss < best_loss
        best_loss = torch.where(better, loss, best_loss)
        best = Grid(
            torch.where(better, grid.scale, best.scale), torch.where(better, grid.zero, best.zero)
        )
    return best
