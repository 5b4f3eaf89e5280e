"""XᵀX of bfloat16 matrices with float32 sums, where AVX512-BF16 is. Workers only (numba).

Calibration spends much of its time on second moments. Their products are those of symmetric
matrices, of which half is enough, and of bfloat16 values, of which ``vdpbf16ps`` multiplies 32 in
one instruction and adds pairs to 16 float32 sums. A BLAS has neither both halves nor both types:
its symmetric product is of float32, and its product of bfloat16 is rounded to bfloat16.

Two rows of X lie interleaved in 32-bit words, in panels of 48 columns: ``[panels, pairs of rows,
48]``. ``bfloat16_tile`` multiplies from there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from llvmlite import binding

from quantd_server.kernels.bfloat16_tile import PANEL, TILE_ROWS, multiply_add
from quantd_server.kernels.compilation import kernel

_PAIRS = 256  # of one panel in the second-level cache: 48 KB


@functools.cache
def available() -> bool:
    """Whether this processor has the instruction, and nothing better: with AMX, torch is faster."""
    features = binding.get_host_cpu_features()
    return bool(features.get("avx512bf16")) and not features.get("amx-bf16")


def add_second_moment(
    inputs: torch.Tensor, gram: torch.Tensor, magnitudes: torch.Tensor, threads: int
) -> None:
    """Adds Σ x xᵀ to what is on and above the diagonal of ``gram``, and Σ |x| to ``magnitudes``.

    Args:
        inputs: bfloat16 [tokens, K], contiguous, on the CPU. Values below 2⁻¹²⁶ count as 0.
        gram: float32 [K, K], contiguous. Some of what is below the diagonal becomes meaningless.
        magnitudes: float64 [K].
        threads: That compute.
    """
    packed, sums = _packed(inputs, threads)
    _in_threads(threads, lambda first: _add_tiles(packed, first, threads, gram.numpy()))
    magnitudes += sums


def squared_product(values: torch.Tensor, gram: torch.Tensor, threads: int) -> float:
    """tr(V G Vᵀ) with the values rounded to bfloat16, products summed in float32, then float64.

    Args:
        values: float32 [rows, K] on the CPU.
        gram: float32 [K, K], contiguous, symmetric.
        threads: That compute.
    """
    packed, _ = _packed(values.to(torch.bfloat16).contiguous(), threads)
    parts = _in_threads(threads, lambda first: _weighed_tiles(packed, first, threads, gram.numpy()))
    return float(sum(parts))


def _packed(values: torch.Tensor, threads: int) -> tuple[Any, torch.Tensor]:
    """In panels, uint32 [panels, pairs, 48] padded with zeros; and the sums of |x|, float32 [K]."""
    rows, columns = values.shape
    panels = -(-columns // PANEL)
    # Of torch, because its memory begins at a multiple of 64 bytes.
    packed = torch.empty((panels, -(-rows // 2), PANEL), dtype=torch.int32).numpy()
    packed = packed.view(np.uint32)
    sums = torch.zeros(panels * PANEL)
    words = values.view(torch.uint16).numpy()
    _in_threads(threads, lambda first: _pack(words, first, threads, packed, sums.numpy()))
    return packed, sums[:columns]


def _in_threads(threads: int, part: Callable[[int], Any]) -> list[Any]:
    """``part(number)`` for every thread."""
    if threads == 1:
        return [part(0)]
    with ThreadPoolExecutor(threads) as executor:
        return list(executor.map(part, range(threads)))


@kernel
def _pack(words: Any, first: int, step: int, packed: Any, sums: Any) -> None:
    rows, columns = words.shape
    panels, pairs, _ = packed.shape
    magnitude = np.uint32(0x7FFFFFFF)
    half = np.uint32(16)
    for panel in range(first, panels, step):
        begin = panel * PANEL
        width = min(PANEL, columns - begin)
        total = sums[begin : begin + PANEL]
        for pair in range(pairs):
            both = 2 * pair + 1 < rows
            target = packed[panel, pair]
            target[width:] = np.uint32(0)
            for column in range(width):
                low = np.uint32(words[2 * pair, begin + column])
                high = np.uint32(words[2 * pair + 1, begin + column]) if both else np.uint32(0)
                target[column] = np.uint32(low | (high << half))
                total[column] += np.uint32((low << half) & magnitude).view(np.float32)
                total[column] += np.uint32((high << half) & magnitude).view(np.float32)


@kernel
def _add_tiles(packed: Any, first: int, step: int, gram: Any) -> None:
    panels, pairs, _ = packed.shape
    columns = gram.shape[0]
    # Tiles over the edge of the matrix are made here; of its length only what is in use counts.
    edge = np.empty((TILE_ROWS, PANEL), np.float32)
    for panel in range(first, panels, step):
        begin = panel * PANEL
        width = min(PANEL, columns - begin)
        for start in range(0, pairs, _PAIRS):
            count = min(_PAIRS, pairs - start)
            for row in range(0, begin + width, TILE_ROWS):
                height = min(TILE_ROWS, columns - row)
                if width == PANEL and height == TILE_ROWS:
                    out = gram[row:, begin:]
                    multiply_add(packed, panel, row, start, count, out.ctypes.data, columns)
                    continue
                edge[:] = np.float32(0.0)
                multiply_add(packed, panel, row, start, count, edge.ctypes.data, PANEL)
                for above in range(height):
                    for column in range(width):
                        gram[row + above, begin + column] += edge[above, column]


@kernel
def _weighed_tiles(packed: Any, first: int, step: int, gram: Any) -> float:
    panels, pairs, _ = packed.shape
    columns = gram.shape[0]
    tile = np.empty((TILE_ROWS, PANEL), np.float32)
    total = 0.0
    for panel in range(first, panels, step):
        begin = panel * PANEL
        width = min(PANEL, columns - begin)
        for row in range(0, begin + width, TILE_ROWS):
            tile[:] = np.float32(0.0)
            for start in range(0, pairs, _PAIRS):
                count = min(_PAIRS, pairs - start)
                multiply_add(packed, panel, row, start, count, tile.ctypes.data, PANEL)
            for above in range(min(TILE_ROWS, columns - row)):
                for column in range(max(0, row + above - begin), width):
                    # What is above the diagonal stands for its mirror image, too.
                    weight = 1.0 if row + above == begin + column else 2.0
                    total += weight * tile[above, column] * gram[row + above, begin + column]
    return total
