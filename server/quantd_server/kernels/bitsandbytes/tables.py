"""Code books of bitsandbytes as float32 values in tuples. Plain Python: importable anywhere.

Every number here is exactly representable in float32, so `np.array(TABLE, np.float32)` is exact.
"""

from __future__ import annotations

import itertools
import struct
from typing import Literal

QuantType = Literal["nf4", "fp4"]

BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Block sizes that bitsandbytes accepts for 4-bit weights; transformers always uses 64."""

NESTED_BLOCK_SIZE = 256
"""Values per nested_absmax in double quantization (fixed in bitsandbytes)."""


def _float32(value: float) -> float:
    """The float32 nearest to `value`."""
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded


NF4_CODE: tuple[float, ...] = tuple(
    _float32(value)
    for value in (
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    )
)
"""NormalFloat4: quantiles of a normal distribution (QLoRA, appendix E), by code."""

FP4_CODE: tuple[float, ...] = tuple(
    _float32(sign * magnitude / 12.0) + 0.0  # both zeros are positive
    for sign in (1.0, -1.0)
    for magnitude in (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)
)
"""4-bit float: 1 sign, 2 exponent, 1 mantissa bit, in bit-pattern order, scaled to [-1, 1]."""

FP4_SORTED_CODES: tuple[int, ...] = (11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3)
"""FP4 codes by rising value. Two codes mean zero: bitsandbytes picks 8 for a small positive value,
0 for exactly zero and for a small negative value."""


def _linspace(start: float, stop: float, count: int) -> list[float]:
    """torch.linspace in float32: filled from both ends, each value rounded once."""
    step = _float32((_float32(stop) - _float32(start)) / (count - 1))
    half = count // 2
    return [
        _float32(_float32(start) + step * index)
        if index < half
        else _float32(_float32(stop) - step * (count - 1 - index))
        for index in range(count)
    ]


def _dynamic_map() -> tuple[float, ...]:
    """The signed 8-bit dynamic map: 7 decades, each with twice the fractions of the one below
    (8-Bit Approximations for Parallelism in Deep Learning, Dettmers 2015, arXiv:1511.04561).
    """
    values = [0.0, 1.0]
    for exponent in range(7):
        bounds = _linspace(0.1, 1.0, 2**exponent + 1)
        scale = _float32(10.0 ** (exponent - 6))
        for low, high in itertools.pairwise(bounds):
            mean = _float32(_float32(low + high) / 2.0)
            values += [_float32(scale * mean), -_float32(scale * mean)]
    return tuple(sorted(values))


DYNAMIC_MAP: tuple[float, ...] = _dynamic_map()
"""The 256 values of double quantization, rising. Code i means DYNAMIC_MAP[i]."""


def code_table(quant_type: QuantType) -> tuple[float, ...]:
    """The 16 values of a 4-bit type by code: what bitsandbytes saves as `weight.quant_map`."""
    return NF4_CODE if quant_type == "nf4" else FP4_CODE


def sorted_codes(quant_type: QuantType) -> tuple[int, ...]:
    """The 16 codes of a 4-bit type by rising value."""
    return tuple(range(16)) if quant_type == "nf4" else FP4_SORTED_CODES


def midpoints(quant_type: QuantType) -> tuple[float, ...]:
    """The 15 float32 bounds between neighbouring values. A value on a bound gets the lower code."""
    table = code_table(quant_type)
    rising = [table[code] for code in sorted_codes(quant_type)]
    return tuple(_float32(_float32(low + high) / 2.0) for low, high in itertools.pairwise(rising))
