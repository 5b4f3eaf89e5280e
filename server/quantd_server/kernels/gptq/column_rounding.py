"""The recursion over the columns of a few: round one, spread its error over the others.

Rows of a weight are independent of each other, and here they lie side by side (a column of the
weight is contiguous), so the inner loop runs over rows in vector registers. One torch operation
a column would spend its time on being called. Used by workers only (numba).
"""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any

import numpy as np
import torch

from quantd_server.kernels.compilation import kernel
from quantd_server.kernels.uniform_grid import Grid

# Rows of a tile: with up to 64 columns of float32 it stays in the first-level cache.
_TILE = 64

_ROUNDER = np.float32(12582912.0)  # 1.5 * 2**23: adding and taking it away rounds half to even


def round_columns(
    compensated: torch.Tensor,
    inverse: torch.Tensor,
    grid: Grid,
    groups: torch.Tensor,
    largest_code: int,
    residual: torch.Tensor,
    codes: torch.Tensor,
    errors: torch.Tensor,
    executor: Executor | None = None,
    threads: int = 1,
) -> None:
    """Round columns one after the other, each with the errors of the ones before spread into it.

    Args:
        compensated: float32 [columns, rows], with the errors of all earlier columns in it.
        inverse: float32 [columns, columns], upper triangular, of the inverse second moment.
        grid: float32 [groups, rows].
        groups: int64 [columns], the group of each column.
        largest_code: 2**bits - 1.
        residual: float32 [columns, rows], in: the original weight; out: weight minus rounded.
        codes: out, uint8 [columns, rows].
        errors: out, float32 [columns, rows], what later columns have to make up for.
        executor, threads: rows are split among so many threads, on a CPU.
    """
    if compensated.device.type != "cpu":
        _round_with_torch(compensated, inverse, grid, groups, largest_code, residual, codes, errors)
        return
    tensors = (compensated, inverse, *grid, groups, residual, codes, errors)
    arrays = [tensor.numpy() for tensor in tensors]
    rows = compensated.shape[1]

    def round_rows(first: int, last: int) -> None:
        _round_rows(np.float32(largest_code), first, last, *arrays)

    share = -(-rows // (threads * _TILE)) * _TILE
    if executor is None or share >= rows:
        round_rows(0, rows)
        return
    shares = range(0, rows, share)
    for _ in executor.map(round_rows, shares, [min(first + share, rows) for first in shares]):
        pass


@kernel
def _round_rows(
    largest_code: Any,
    first: int,
    last: int,
    compensated: Any,
    inverse: Any,
    scales: Any,
    zeros: Any,
    groups: Any,
    residual: Any,
    codes: Any,
    errors: Any,
) -> None:
    columns = compensated.shape[0]
    tile = np.empty((columns, _TILE), np.float32)
    error = np.empty(_TILE, np.float32)
    for start in range(first, last, _TILE):
        lanes = min(_TILE, last - start)
        for column in range(columns):
            for lane in range(lanes):
                tile[column, lane] = compensated[column, start + lane]
        for column in range(columns):
            pivot = inverse[column, column]
            group = groups[column]
            for lane in range(lanes):
                row = start + lane
                zero = zeros[group, row]
                scale = scales[group, row]
                value = tile[column, lane]
                # Bounds are integers: cutting off first gives the same code and bounds the rest.
                steps = min(max(value / scale, -zero), largest_code - zero)
                steps = np.float32(steps + _ROUNDER) - _ROUNDER
                grid_value = steps * scale
                codes[column, row] = np.uint8(np.int32(steps + zero))
                residual[column, row] -= grid_value
                error[lane] = (value - grid_value) / pivot
                errors[column, row] = error[lane]
            for later in range(column + 1, columns):
                factor = inverse[column, later]
                for lane in range(_TILE):
                    tile[later, lane] -= error[lane] * factor


def _round_with_torch(
    compensated: torch.Tensor,
    inverse: torch.Tensor,
    grid: Grid,
    groups: torch.Tensor,
    largest_code: int,
    residual: torch.Tensor,
    codes: torch.Tensor,
    errors: torch.Tensor,
) -> None:
    values = compensated.clone()
    for column, group in enumerate(groups.tolist()):
        scale, zero = grid.scale[group], grid.zero[group]
        steps = torch.round(values[column] / scale).add_(zero).clamp_(0.0, largest_code)
        codes[column] = steps.to(torch.uint8)
        grid_value = steps.sub_(zero).mul_(scale)
        residual[column] -= grid_value
        errors[column] = (values[column] - grid_value).div_(inverse[column, column])
        values[column + 1 :].addr_(inverse[column, column + 1 :], errors[column], alpha=-1.0)
