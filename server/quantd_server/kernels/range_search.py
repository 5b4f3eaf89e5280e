"""The search for the range of a uniform grid, compiled for CPUs. Used by workers only (numba).

Dozens of candidates for every group: in torch each would pass over the weights ten times. Here the
rows of a group lie side by side in a tile that stays in the first-level cache, and the inner loops
run over rows in vector registers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from quantd_server.kernels.compilation import inner_kernel, kernel
from quantd_server.kernels.dtypes import float16_to_float32, float32_to_float16

_TILE = 64

_ROUNDER = np.float32(12582912.0)  # 1.5 * 2**23: adding and taking it away rounds half to even

_EXPONENT_BIAS = np.int32(127)
_MANTISSA_BITS = np.int32(23)
_MANTISSA = np.int32(0x007FFFFF)
_ONE_BITS = np.int32(0x3F800000)


@inner_kernel
def _power(value: Any, exponent: Any) -> Any:
    """value**exponent for float32 above 0 to about 1e-4, in few enough steps for a vector loop."""
    bits = np.float32(value).view(np.int32)
    mantissa = np.int32((bits & _MANTISSA) | _ONE_BITS).view(np.float32)
    whole = np.float32((bits >> _MANTISSA_BITS) - _EXPONENT_BIAS)
    # log2(m) of 1 <= m < 2 from t = (m - 1) / (m + 1): 2 / ln 2 * (t + t³/3 + t⁵/5 + t⁷/7).
    ratio = (mantissa - np.float32(1.0)) / (mantissa + np.float32(1.0))
    square = ratio * ratio
    series = np.float32(1 / 5) + square * np.float32(1 / 7)
    series = np.float32(1.0) + square * (np.float32(1 / 3) + square * series)
    power = exponent * (whole + np.float32(2.8853900817779268) * ratio * series)
    power = min(max(power, np.float32(-126.0)), np.float32(126.0))
    near = np.float32(power + _ROUNDER) - _ROUNDER
    # 2**x of |x| <= 1/2 by the series of exp(x ln 2).
    x = (power - near) * np.float32(0.6931471805599453)
    fraction = np.float32(1 / 6) + x * (np.float32(1 / 24) + x * np.float32(1 / 120))
    fraction = np.float32(1.0) + x * (np.float32(1.0) + x * (np.float32(0.5) + x * fraction))
    exponent_bits = np.int32((np.int32(near) + _EXPONENT_BIAS) << _MANTISSA_BITS)
    return fraction * exponent_bits.view(np.float32)


@kernel
def search_range(
    values: Any,
    importance: Any,
    low: Any,
    high: Any,
    largest_code: Any,
    middle: Any,
    mse: Any,
    shrinks: Any,
    scales: Any,
    zeros: Any,
) -> None:
    """Improve the grids of groups where a narrower range has a smaller error.

    Args:
        values: float32 [groups, size, rows].
        importance: float32 [groups, size].
        low, high: float32 [groups, rows], the full ranges.
        largest_code: float32.
        middle: float32, the zero point of a symmetric grid; negative for an asymmetric one.
        mse: float32, exponent of the error.
        shrinks: float32, the fractions of the range to try, 1 not among them.
        scales, zeros: float32 [groups, rows], in: the grids of the full ranges; out: the best.
    """
    groups, size, rows = values.shape
    tile = np.zeros((size, _TILE), np.float32)
    scale = np.ones(_TILE, np.float32)
    inverse = np.ones(_TILE, np.float32)
    zero = np.zeros(_TILE, np.float32)
    loss = np.empty(_TILE, np.float32)
    best = np.empty(_TILE, np.float32)
    squares = mse == np.float32(2.0)
    for group in range(groups):
        for start in range(0, rows, _TILE):
            lanes = min(_TILE, rows - start)
            for index in range(size):
                for lane in range(lanes):
                    tile[index, lane] = values[group, index, start + lane]
            for candidate in range(len(shrinks) + 1):
                for lane in range(lanes):
                    row = start + lane
                    if candidate == 0:
                        scale[lane] = scales[group, row]
                        zero[lane] = zeros[group, row]
                    else:
                        factor = shrinks[candidate - 1]
                        step = (high[group, row] - low[group, row]) * factor / largest_code
                        half = float16_to_float32(float32_to_float16(step))
                        scale[lane] = half if half > np.float32(0.0) else scales[group, row]
                        zero[lane] = middle
                        if middle < np.float32(0.0):
                            steps = np.rint(-low[group, row] * factor / scale[lane])
                            zero[lane] = min(max(steps, np.float32(0.0)), largest_code)
                    inverse[lane] = np.float32(1.0) / scale[lane]
                loss[:] = np.float32(0.0)
                for index in range(size):
                    weight = importance[group, index]
                    for lane in range(_TILE):
                        value = tile[index, lane]
                        steps = min(
                            max(value * inverse[lane], -zero[lane]), largest_code - zero[lane]
                        )
                        steps = np.float32(steps + _ROUNDER) - _ROUNDER
                        error = abs(steps * scale[lane] - value)
                        error = error * error if squares else _power(error, mse)
                        loss[lane] += weight * error
                for lane in range(lanes):
                    if candidate == 0 or loss[lane] < best[lane]:
                        best[lane] = loss[lane]
                        scales[group, start + lane] = scale[lane]
                        zeros[group, start + lane] = zero[lane]
