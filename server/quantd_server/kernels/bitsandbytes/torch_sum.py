"""torch's float32 mean on one CPU thread, to the last bit. Used by workers only (numba).

Float addition is not associative, so a sum has the bits of its order. torch sums a contiguous
array in vectors of 8 lanes (4 on 64-bit ARM), four vectors at a time, and cascades the partial
sums over four levels (ATen/native/cpu/SumKernel.cpp, which is built for AVX2 at most: CPUs with
AVX-512 use 8 lanes too). Above 32768 values torch splits the sum among its threads, and the last
bits depend on their number: this is the order of one thread (OMP_NUM_THREADS=1).
"""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import numpy.typing as npt

from quantd_server.kernels.compilation import kernel

_VECTORS_AT_A_TIME = 4
_LEVELS = 4


def torch_lanes() -> int:
    """Float32 lanes of torch's sum on this host."""
    return 4 if platform.machine().lower() in ("aarch64", "arm64") else 8


@kernel
def _ceil_log2(value: int) -> int:
    power = 1
    while (1 << power) < value:
        power += 1
    return power


@kernel
def _cascade(values: Any, rows: int, width: int) -> Any:
    """Column sums of the first rows * width values seen as [rows, width]: float32[width].

    A level collects `step` partial sums of the level below, then hands its sum up.
    """
    level_power = max(4, _ceil_log2(rows) // _LEVELS)
    step = 1 << level_power
    sums = np.zeros((_LEVELS, width), np.float32)
    row = 0
    while row + step <= rows:
        for _ in range(step):
            for column in range(width):
                sums[0, column] += values[row * width + column]
            row += 1
        for level in range(1, _LEVELS):
            for column in range(width):
                sums[level, column] += sums[level - 1, column]
                sums[level - 1, column] = 0.0
            if row & ((step - 1) << (level * level_power)):
                break
    while row < rows:
        for column in range(width):
            sums[0, column] += values[row * width + column]
        row += 1
    for level in range(1, _LEVELS):
        for column in range(width):
            sums[0, column] += sums[level, column]
    return sums[0]


@kernel
def _lane_sums(values: Any, vectors: int, lanes: int) -> Any:
    """Sums over vectors of `lanes` values each: float32[lanes]."""
    rows = vectors // _VECTORS_AT_A_TIME
    sums = _cascade(values, rows, _VECTORS_AT_A_TIME * lanes)
    for vector in range(rows * _VECTORS_AT_A_TIME, vectors):
        for lane in range(lanes):
            sums[lane] += values[vector * lanes + lane]
    for vector in range(1, _VECTORS_AT_A_TIME):
        for lane in range(lanes):
            sums[lane] += sums[vector * lanes + lane]
    return sums[:lanes]


@kernel
def _mean(values: Any, lanes: int) -> Any:
    if values.size < lanes:
        total = _lane_sums(values, values.size, 1)[0]
    else:
        vectors = values.size // lanes
        total = np.float32(0.0)
        for i in range(vectors * lanes, values.size):
            total += values[i]
        for lane_sum in _lane_sums(values, vectors, lanes):
            total += lane_sum
    return total / np.float32(values.size)


def torch_mean(values: npt.NDArray[np.float32], lanes: int | None = None) -> np.float32:
    """What `torch.from_numpy(values).mean()` gives on one thread, for contiguous float32[n], n > 0.

    lanes: float32 lanes of the CPU whose torch is meant; this host's by default.
    """
    return np.float32(_mean(values, torch_lanes() if lanes is None else lanes))
