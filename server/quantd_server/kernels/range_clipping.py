"""Ranges of uniform grids clipped for the output's sake, on torch tensors. Used by workers only.

A narrower range makes steps smaller and cuts off the largest weights. For each row and group the
range is taken that loses least of the group's output. With the group's block G of the inputs'
second moment that loss is dᵀ G d, d being the group's rounding errors: exact, where AWQ's published
search (section C of arXiv:2306.00978) multiplies a sample of tokens. GPTQ gains as well from fixed
grids that were clipped before it starts.
"""

from __future__ import annotations

import torch

from quantd_server.kernels import uniform_grid
from quantd_server.kernels.uniform_grid import Grid

# Rows searched at once.
_ROWS = 1024


def clipped_grid(
    weight: torch.Tensor,
    gram: torch.Tensor,
    *,
    bits: int,
    group_size: int,
    sym: bool,
    max_shrink: float = 0.5,
    n_grid: int = 20,
) -> Grid:
    """Fit the grids of a weight to clipped ranges: float32 [groups, rows].

    Candidates are a group's range times 1, 1 - 1/n_grid … above 1 - max_shrink, on both sides of
    0, and for asymmetric grids every second of these steps on one side alone; what lies beyond
    takes the outermost code. A range that is as good as a narrower one is kept.

    Args:
        weight: float32 [rows, columns], with channel scales multiplied in if there are any.
        gram: float32 [columns, columns], the second moment of the input, divided by such scales.
        bits, group_size, sym: see :mod:`quantd_server.kernels.uniform_grid`.
        max_shrink: largest fraction of the range that may be cut off.
        n_grid: steps from the full range to 0.

    Raises:
        ValueError: Shapes that do not fit.
    """
    if gram.shape != (weight.shape[1],) * 2:
        raise ValueError(f"a weight {tuple(weight.shape)} does not fit a gram {tuple(gram.shape)}")
    factors = _factors(max_shrink, n_grid, sym=sym)
    chunks = [
        _clipped_rows(
            uniform_grid.in_groups(rows, group_size).contiguous(), gram, factors, bits=bits, sym=sym
        )
        for rows in weight.split(_ROWS)
    ]
    return Grid(
        torch.cat([grid.scale for grid in chunks], dim=1),
        torch.cat([grid.zero for grid in chunks], dim=1),
    )


def _factors(max_shrink: float, n_grid: int, *, sym: bool) -> list[tuple[float, float]]:
    """What the lower and the upper end of a range are multiplied by, largest range first."""
    steps = [1.0 - step / n_grid for step in range(max(int(max_shrink * n_grid), 1))]
    both = [(step, step) for step in steps]
    if sym:
        return both
    # Every second step of one end alone: a group often has one outlier.
    one = steps[2::2]
    return [*both, *((step, 1.0) for step in one), *((1.0, step) for step in one)]


def _clipped_rows(
    values: torch.Tensor,
    gram: torch.Tensor,
    factors: list[tuple[float, float]],
    *,
    bits: int,
    sym: bool,
) -> Grid:
    groups, size, _ = values.shape
    # The blocks on the diagonal, [groups, size, size], without a copy.
    blocks = gram.unflatten(0, (groups, size)).unflatten(2, (groups, size))
    blocks = blocks.diagonal(dim1=0, dim2=2).movedim(-1, 0)
    low, high = uniform_grid.value_range(values, sym=sym)
    best = uniform_grid.grid_of_range(low, high, bits=bits, sym=sym)
    best_loss = torch.full_like(best.scale, torch.inf)
    for below, above in factors:
        grid = uniform_grid.grid_of_range(low * below, high * above, bits=bits, sym=sym)
        errors = uniform_grid.rounded(values, grid, bits).sub_(values)
        loss = (blocks @ errors).mul_(errors).sum(dim=1)
        better = loss < best_loss
        best_loss = torch.where(better, loss, best_loss)
        best = Grid(
            torch.where(better, grid.scale, best.scale), torch.where(better, grid.zero, best.zero)
        )
    return best
