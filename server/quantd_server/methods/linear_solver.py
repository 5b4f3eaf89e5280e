"""How one linear is quantized once its input is known: the grid, then the codes (worker only).

Three ways, from the same arguments to the same result: plain rounding, rounding to clipped ranges
(AWQ), and GPTQ's solver.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from quantd_server.kernels import uniform_grid
from quantd_server.kernels.gptq.column_order import ColumnOrder
from quantd_server.kernels.gptq.solver import solve
from quantd_server.kernels.range_clipping import clipped_grid
from quantd_server.kernels.scale_refit import refit_scales
from quantd_server.kernels.uniform_grid import Grid


@dataclass(frozen=True, kw_only=True, slots=True)
class GptqSettings:
    """Arguments of GPTQ's solver; see ``kernels.gptq.solver.solve``."""

    order: ColumnOrder
    static_groups: bool
    damp_percent: float
    damp_auto_increment: float
    block_size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearSettings:
    """How a linear is quantized."""

    bits: int
    group_size: int
    sym: bool
    mse: float = 0.0
    """As in ``uniform_grid.fit``."""
    max_shrink: float | None = None
    """Largest part of a range that clipping may cut off; None for no clipping. GPTQ's solver clips
    the grids that are fixed before it starts (``static_groups``)."""
    gptq: GptqSettings | None = None
    """None for rounding to the nearest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizedWeight:
    """A weight [out, in] as codes: ``(codes - zeros[:, g_idx]) * scales[:, g_idx]``."""

    codes: torch.Tensor
    """uint8 [out, in]."""
    scales: torch.Tensor
    """float32 [out, groups], each exactly a float16."""
    zeros: torch.Tensor
    """uint8 [out, groups]."""
    g_idx: torch.Tensor
    """int32 [in]."""
    fell_back: bool = False
    """The solver could not use the statistics and rounded."""
    saturated_groups: int = 0
    """Groups whose largest values are cut off, because float16 holds no scale for them."""

    def dequantize(self) -> torch.Tensor:
        """float32 [out, in], as readers compute it; a new tensor."""
        index = self.g_idx.long()
        weight = self.codes.T.to(torch.float32, copy=True)
        weight -= self.zeros.T.to(torch.float32)[index]
        weight *= self.scales.T[index]
        return weight.T


def quantize_linear(
    weight: torch.Tensor, gram: torch.Tensor, settings: LinearSettings, threads: int
) -> QuantizedWeight:
    """Quantize a weight float32 [out, in] whose input has the second moment ``gram`` [in, in]."""
    if settings.gptq is None:
        return _refitted(weight, gram, rounded(weight, settings, gram))
    size = uniform_grid.checked_group_size(weight.shape[1], settings.group_size)
    static_grid = None
    if settings.gptq.static_groups:
        static_grid = _grid(weight, gram, settings, size)
    solution = solve(
        weight,
        gram,
        bits=settings.bits,
        group_size=settings.group_size,
        sym=settings.sym,
        mse=settings.mse,
        order=settings.gptq.order,
        static_grid=static_grid,
        damp_percent=settings.gptq.damp_percent,
        damp_auto_increment=settings.gptq.damp_auto_increment,
        block_size=settings.gptq.block_size,
        threads=threads,
    )
    return QuantizedWeight(
        codes=solution.codes,
        scales=solution.scales,
        zeros=solution.zeros,
        g_idx=solution.g_idx,
        fell_back=solution.fell_back,
        saturated_groups=solution.saturated_groups,
    )


def _refitted(
    weight: torch.Tensor, gram: torch.Tensor, quantized: QuantizedWeight
) -> QuantizedWeight:
    scales = refit_scales(
        weight, quantized.codes, quantized.scales, quantized.zeros, quantized.g_idx, gram
    )
    return replace(quantized, scales=scales)


def rounded(
    weight: torch.Tensor, settings: LinearSettings, gram: torch.Tensor | None = None
) -> QuantizedWeight:
    """Every weight rounded to the nearest; with a ``gram``, to ranges clipped for its sake."""
    size = uniform_grid.checked_group_size(weight.shape[1], settings.group_size)
    values = uniform_grid.in_groups(weight, size)
    return _with_grid(values, _grid(weight, gram, settings, size), settings.bits)


def _grid(
    weight: torch.Tensor, gram: torch.Tensor | None, settings: LinearSettings, size: int
) -> Grid:
    """Grids of groups as they lie in the weight."""
    if gram is None or settings.max_shrink is None:
        values = uniform_grid.in_groups(weight, size)
        return uniform_grid.fit(values, bits=settings.bits, sym=settings.sym, mse=settings.mse)
    return clipped_grid(
        weight,
        gram,
        bits=settings.bits,
        group_size=size,
        sym=settings.sym,
        max_shrink=settings.max_shrink,
    )


def _with_grid(values: torch.Tensor, grid: Grid, bits: int) -> QuantizedWeight:
    """``values`` [groups, group_size, rows]."""
    groups, size, _ = values.shape
    index = torch.arange(groups * size, device=values.device) // size
    return QuantizedWeight(
        codes=uniform_grid.quantize(values, grid, bits).flatten(0, 1).contiguous().T,
        scales=grid.scale.T,
        zeros=grid.zero.to(torch.uint8).T,
        g_idx=index.to(torch.int32),
        saturated_groups=uniform_grid.saturated_groups(grid),
    )
