"""GPTQ's solver (Frantar et al. 2022, arXiv:2210.17323), on torch tensors. Used by workers only.

Columns are rounded one after the other; the error of each is made up for, as far as the second
moment of the inputs allows, by the columns that follow. With H = R Rᵀ (R upper triangular) and D
the weight minus its rounded value, the output error tr(D H Dᵀ) is ‖D R‖². What earlier columns
contribute to a block b of columns is D R[:, b], one matrix product, and the block's best
continuous answer to it is the weight plus D R[:, b] R[b, b]⁻¹. Inside a block the textbook's
recursion runs with R[b, b]⁻¹, which is the block of its Cholesky factor of H⁻¹.

So the full inverse is never formed, and D takes the place of the weight as the solver goes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from quantd_server.kernels import uniform_grid
from quantd_server.kernels.gptq.column_order import ColumnOrder, column_order
from quantd_server.kernels.gptq.column_rounding import round_columns
from quantd_server.kernels.gptq.reverse_cholesky import factorize_in_place
from quantd_server.kernels.uniform_grid import Grid

BITS = (2, 3, 4, 8)

# Columns of one recursion; what it changes has to stay in the first-level cache.
_SEGMENT = 64

# Rows copied at once when a matrix is permuted.
_CHUNK = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Solution:
    """A quantized weight [rows, columns], ready to be packed.

    ``weight ≈ (codes - zeros[:, g_idx]) * scales[:, g_idx]``.
    """

    codes: torch.Tensor
    """uint8 [rows, columns], a transposed view: its ``.T`` is contiguous."""

    scales: torch.Tensor
    """float32 [rows, groups], each exactly a float16; a transposed view."""

    zeros: torch.Tensor
    """uint8 [rows, groups]; a transposed view."""

    g_idx: torch.Tensor
    """int32 [columns], the group of each column."""

    damp: float
    """Fraction of its mean that was added to the diagonal; 0 if fallen back."""

    squared_error: float
    """tr(D G Dᵀ) with the given gram G; NaN if fallen back."""

    dead_columns: int
    """Columns whose inputs were all zero: rounded on their own."""

    saturated_groups: int
    """Groups whose values are too large for a float16 scale: their largest values are cut off."""

    fell_back: bool
    """The second moment was not finite or not positive definite: weights were plainly rounded."""


def solve(
    weight: torch.Tensor,
    gram: torch.Tensor,
    *,
    bits: int,
    group_size: int,
    sym: bool,
    order: ColumnOrder = ColumnOrder.NATURAL,
    static_grid: Grid | None = None,
    damp_percent: float = 0.05,
    damp_auto_increment: float = 0.01,
    mse: float = 0.0,
    block_size: int = 128,
    threads: int | None = None,
) -> Solution:
    """Quantize a weight so that the output error on the inputs of its second moment is small.

    Args:
        weight: float32 [rows, columns], finite. Not changed.
        gram: float32 [columns, columns], the sum or mean of x xᵀ over inputs x, on the weight's
            device; its scale does not matter. Not changed: one copy of it is made.
        bits: 2, 3, 4 or 8.
        group_size: columns of a group, a divisor of the columns; -1 is one group.
        sym, mse: see :func:`quantd_server.kernels.uniform_grid.fit`.
        order: in which order columns are rounded.
        static_grid: fixed grids, float32 [groups, rows], of natural groups, for example fitted to
            the original weight; if not given, each is fitted when its group's turn has come.
        damp_percent: fraction of the mean diagonal added to the diagonal.
        damp_auto_increment: how much more is added when the matrix is not positive definite, and
            twice as much each further time; 0 goes to a floor below small diagonal entries.
        block_size: columns solved together. Changes speed only.
        threads: threads of the recursion on a CPU; torch's own number if not given.

    Raises:
        ValueError: Shapes that do not fit, a weight that is not finite, or a value out of range.
    """
    rows, columns = _checked(weight, gram, bits, block_size)
    size = uniform_grid.checked_group_size(columns, group_size)
    positions = column_order(order, gram.diagonal(), size)
    problem = _factorize(gram, positions, damp_percent, damp_auto_increment)
    if problem is None:
        values = uniform_grid.in_groups(weight, size)
        grid = static_grid or uniform_grid.fit(values, bits=bits, sym=sym, mse=mse)
        return _plain_rounding(values, gram, grid, bits)

    natural = torch.arange(columns, device=weight.device)
    by_position = order is ColumnOrder.ACTIVATION and static_grid is None
    groups = (natural if by_position else positions) // size
    if static_grid is None:
        empty = weight.new_empty((columns // size, rows))
        grid = Grid(empty, torch.empty_like(empty))
    else:
        grid = Grid(static_grid.scale.contiguous(), static_grid.zero.contiguous())

    residual = weight.T[positions]
    codes = torch.empty_like(residual, dtype=torch.uint8)
    damped_error = 0.0
    block = _block_of_whole_groups(block_size, size, columns)
    threads = threads or torch.get_num_threads()
    with ThreadPoolExecutor(threads) if threads > 1 else nullcontext() as executor:
        for start in range(0, columns, block):
            stop = min(start + block, columns)
            inverse = _inverse(problem.factor[start:stop, start:stop])
            compensated = residual[start:stop].clone()
            if start:
                earlier = problem.factor[:start, start:stop].T @ residual[:start]
                compensated.addmm_(inverse.T, earlier)
            errors = torch.empty_like(compensated)
            for first, last in _segments(start, stop, size):
                if static_grid is None and first % size == 0:
                    # A group larger than a block is the only one: the weight is untouched yet.
                    values = compensated[first - start :][:size] if size <= block else residual
                    fitted = uniform_grid.fit(values, bits=bits, sym=sym, mse=mse)
                    grid.scale[groups[first]], grid.zero[groups[first]] = fitted
                here, rest = slice(first - start, last - start), slice(last - start, None)
                round_columns(
                    compensated[here],
                    inverse[here, here].contiguous(),
                    grid,
                    groups[first:last],
                    uniform_grid.largest_code(bits),
                    residual[first:last],
                    codes[first:last],
                    errors[here],
                    executor,
                    threads,
                )
                compensated[rest].addmm_(inverse[here, rest].T, errors[here], alpha=-1.0)
            damped_error += float(errors.square_().sum(dtype=torch.float64))

    damping_error = residual.square_().sum(dim=1, dtype=torch.float64) @ problem.added.double()
    natural_codes = torch.empty_like(codes)
    natural_codes[positions] = codes
    g_idx = torch.empty(columns, dtype=torch.int32, device=weight.device)
    g_idx[positions] = groups.to(torch.int32)
    return Solution(
        codes=natural_codes.T,
        scales=grid.scale.T,
        zeros=grid.zero.to(torch.uint8).T,
        g_idx=g_idx,
        damp=problem.damp,
        squared_error=max(damped_error - float(damping_error), 0.0) * problem.scale,
        dead_columns=_dead_columns(gram),
        saturated_groups=uniform_grid.saturated_groups(grid),
        fell_back=False,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Problem:
    """The damped second moment in the order of the columns, divided by ``scale``."""

    factor: torch.Tensor  # [columns, columns], upper triangular; meaningless below the diagonal
    added: torch.Tensor  # [columns], what was added to the diagonal
    damp: float
    scale: float


def _factorize(
    gram: torch.Tensor, positions: torch.Tensor, damp_percent: float, increment: float
) -> _Problem | None:
    """Factorize with as little damping as is asked for and possible; None if nothing helps."""
    diagonal = gram.diagonal()[positions]
    live = diagonal != 0.0
    scale = float(diagonal[live].mean(dtype=torch.float64)) if bool(live.any()) else 1.0
    if not (0.0 < scale < math.inf) or not math.isfinite(float(gram.sum(dtype=torch.float64))):
        return None
    diagonal = diagonal / scale
    for damp, floor in _dampings(damp_percent, increment, float(diagonal.max())):
        # Dead columns have no influence on others; any positive number will do for them.
        damped = torch.where(live, diagonal.clamp(min=floor), 1.0) + damp
        factor = _permuted(gram, positions)
        factor.div_(scale).diagonal().copy_(damped)
        if factorize_in_place(factor):
            return _Problem(factor=factor, added=damped - diagonal, damp=damp, scale=scale)
        del factor
    return None


def _dampings(percent: float, increment: float, largest: float) -> Iterator[tuple[float, float]]:
    """What to add to the diagonal and the floor below it, from try to try."""
    no_floor = -math.inf
    damp = percent
    while damp < 1.0:
        yield damp, no_floor
        if increment == 0.0:
            break
        damp += increment
        increment *= 2.0  # a handful of factorizations, however small the first increment
    for exponent in range(-6, 0):
        yield percent, largest * 10.0**exponent


def _permuted(matrix: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    permuted = torch.empty_like(matrix)
    for first in range(0, len(positions), _CHUNK):
        chunk = slice(first, first + _CHUNK)
        torch.index_select(matrix[positions[chunk]], 1, positions, out=permuted[chunk])
    return permuted


def _inverse(upper: torch.Tensor) -> torch.Tensor:
    identity = torch.eye(upper.shape[0], device=upper.device)
    return torch.linalg.solve_triangular(upper, identity, upper=True)


def _block_of_whole_groups(block_size: int, group_size: int, columns: int) -> int:
    """A grid is fitted at the start of a group, when earlier errors are in all of its columns."""
    if group_size == columns:
        return block_size
    return max(block_size // group_size, 1) * group_size


def _segments(start: int, stop: int, group_size: int) -> Iterator[tuple[int, int]]:
    """Split start..stop at groups, and further."""
    first = start
    while first < stop:
        end_of_group = (first // group_size + 1) * group_size
        last = min(first + _SEGMENT, end_of_group, stop)
        yield first, last
        first = last


def _plain_rounding(values: torch.Tensor, gram: torch.Tensor, grid: Grid, bits: int) -> Solution:
    natural = torch.arange(gram.shape[0], device=gram.device)
    return Solution(
        codes=uniform_grid.quantize(values, grid, bits).flatten(0, 1).contiguous().T,
        scales=grid.scale.T,
        zeros=grid.zero.to(torch.uint8).T,
        g_idx=(natural // values.shape[1]).to(torch.int32),
        damp=0.0,
        squared_error=math.nan,
        dead_columns=_dead_columns(gram),
        saturated_groups=uniform_grid.saturated_groups(grid),
        fell_back=True,
    )


def _dead_columns(gram: torch.Tensor) -> int:
    return int((gram.diagonal() == 0.0).sum())


def _checked(
    weight: torch.Tensor, gram: torch.Tensor, bits: int, block_size: int
) -> tuple[int, int]:
    if weight.dim() != 2 or weight.shape[0] < 1 or weight.shape[1] < 1:
        raise ValueError(f"a weight has shape [rows, columns], got {tuple(weight.shape)}")
    rows, columns = weight.shape
    if gram.shape != (columns, columns):
        raise ValueError(
            f"a weight with {columns} columns needs a gram [{columns}, {columns}], "
            f"got {tuple(gram.shape)}"
        )
    if weight.dtype != torch.float32 or gram.dtype != torch.float32:
        raise ValueError(f"weight and gram are float32, got {weight.dtype} and {gram.dtype}")
    if bits not in BITS:
        raise ValueError(f"bits is {bits}; the packed formats have 2, 3, 4 and 8")
    if block_size < 1:
        raise ValueError(f"block_size is {block_size}; it has to be at least 1")
    if not math.isfinite(float(weight.sum(dtype=torch.float64))):
        raise ValueError("the weight holds NaN or infinity")
    return rows, columns
