"""Conversions between float32 and the dtypes of checkpoints, and scans over float32 values.

Used by workers only (numba). Every function works on a chunk, releases the GIL, keeps no state
and may run on several threads at once.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from quantd_server.kernels.compilation import inlined_kernel, kernel

FloatDtype = Literal["F32", "F16", "BF16"]
Float32Array = npt.NDArray[np.float32]

_SIGN = np.uint32(0x80000000)
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_INFINITY = np.uint32(0x7F800000)
_QUIET_NAN_BF16 = np.uint32(0x7FC0)
_QUIET_NAN_F16 = np.uint32(0x7E00)
_F16_INFINITY = np.uint32(0x7C00)
_F16_INFINITY_SHIFTED = np.uint32(0x7C00 << 13)
_F16_OVERFLOW = np.uint32(0x477FF000)  # 65520: from here on, a float32 rounds to float16 infinity
_F16_SMALLEST_NORMAL = np.uint32(0x38800000)  # 2**-14
_F16_REBIAS = np.float32(2.0**112)  # float32 exponent bias 127 minus float16 exponent bias 15
_F16_SUBNORMAL_GRID = np.float32(0.5)  # float32 values in [0.5, 1) are 2**-24 apart, as subnormals
_F16_SUBNORMAL_BITS = np.uint32(0x3F000000)  # the bits of 0.5
_REBIAS_BITS = np.uint32(112 << 23)
_SCAN = 4096
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


@inlined_kernel
def float16_to_float32(half: Any) -> Any:
    """Exact value of float16 bits (uint16 in, float32 out)."""
    magnitude = np.uint32((half & np.uint32(0x7FFF)) << np.uint32(13))
    # Read as float32, the shifted bits are the value divided by 2**112, subnormals included.
    bits = np.float32(magnitude.view(np.float32) * _F16_REBIAS).view(np.uint32)
    if magnitude >= _F16_INFINITY_SHIFTED:
        bits = np.uint32(magnitude | _INFINITY)
    sign = np.uint32((half & np.uint32(0x8000)) << np.uint32(16))
    return np.uint32(bits | sign).view(np.float32)


@inlined_kernel
def float32_to_float16(value: Any) -> Any:
    """Nearest float16 bits, ties to even (float32 in, uint16 out). Too large becomes infinity."""
    bits = np.float32(value).view(np.uint32)
    magnitude = np.uint32(bits & _MAGNITUDE)
    odd = np.uint32((magnitude >> np.uint32(13)) & np.uint32(1))
    rounded_up = np.uint32(magnitude - _REBIAS_BITS + np.uint32(0xFFF) + odd)
    normal = np.uint32(rounded_up >> np.uint32(13))
    on_grid = np.float32(magnitude.view(np.float32) + _F16_SUBNORMAL_GRID).view(np.uint32)
    subnormal = np.uint32(on_grid - _F16_SUBNORMAL_BITS)
    half = subnormal if magnitude < _F16_SMALLEST_NORMAL else normal
    half = _F16_INFINITY if magnitude >= _F16_OVERFLOW else half
    half = _QUIET_NAN_F16 if magnitude > _INFINITY else half
    return np.uint16(half | ((bits & _SIGN) >> np.uint32(16)))


@kernel
def _float16_chunk_to_float32(raw: Any, out: Any) -> None:
    for i in range(raw.size):
        out[i] = float16_to_float32(raw[i])


@kernel
def _float32_chunk_to_float16(values: Any, out: Any) -> None:
    for i in range(values.size):
        out[i] = float32_to_float16(values[i])


@kernel
def _bfloat16_chunk_to_float32(raw: Any, out_bits: Any) -> None:
    for i in range(raw.size):
        out_bits[i] = np.uint32(raw[i]) << np.uint32(16)


@kernel
def _float32_chunk_to_bfloat16(bits: Any, out: Any) -> None:
    for i in range(bits.size):
        word = bits[i]
        odd = np.uint32((word >> np.uint32(16)) & np.uint32(1))
        rounded = np.uint32(np.uint32(word + np.uint32(0x7FFF) + odd) >> np.uint32(16))
        is_nan = np.uint32(word & _MAGNITUDE) > _INFINITY
        out[i] = np.uint16(_QUIET_NAN_BF16 if is_nan else rounded)


def to_float32(raw: npt.NDArray[Any], dtype: FloatDtype, out: Float32Array) -> None:
    """Write the exact float32 values of `raw` (contiguous, any item type) to out: float32[n].

    Raises ValueError for another dtype, or when raw does not hold out.size values.
    """
    if dtype not in _ITEM_BYTES:
        raise ValueError(f"dtype is {dtype!r}; to_float32 reads F32, F16 or BF16")
    words: npt.NDArray[Any] = raw.reshape(-1).view(np.float32 if dtype == "F32" else np.uint16)
    if words.size != out.size:
        raise ValueError(f"raw holds {words.size} values of {dtype}; out has room for {out.size}")
    if dtype == "F32":
        out[:] = words
    elif dtype == "F16":
        _float16_chunk_to_float32(words, out)
    else:
        _bfloat16_chunk_to_float32(words, out.view(np.uint32))


def from_float32(
    values: Float32Array, dtype: FloatDtype, out: npt.NDArray[np.uint8] | None = None
) -> npt.NDArray[np.uint8]:
    """The bytes of values: float32[n] in `dtype`, rounded to nearest, ties to even; NaN stays NaN.

    out: where to write them, uint8[n * bytes of dtype]; a new array when absent.
    Raises ValueError for another dtype or size of out.
    """
    if dtype not in _ITEM_BYTES:
        raise ValueError(f"dtype is {dtype!r}; from_float32 writes F32, F16 or BF16")
    size = values.size * _ITEM_BYTES[dtype]
    if out is None:
        out = np.empty(size, np.uint8)
    elif out.size != size:
        raise ValueError(f"out has {out.size} bytes; {values.size} values of {dtype} need {size}")
    if dtype == "F32":
        out.view(np.float32)[:] = values
    elif dtype == "F16":
        _float32_chunk_to_float16(values, out.view(np.uint16))
    else:
        _float32_chunk_to_bfloat16(values.view(np.uint32), out.view(np.uint16))
    return out


@kernel
def _first_magnitude_from(bits: Any, limit: Any) -> Any:
    """Index of the first value whose bits without the sign are `limit` or more; -1 if none."""
    for start in range(0, bits.size, _SCAN):
        part = bits[start : start + _SCAN]  # indexed from 0, or the loops do not vectorize
        largest = np.uint32(0)
        for i in range(part.size):  # nor does a search, for it branches: first the maximum
            largest = max(largest, np.uint32(part[i] & _MAGNITUDE))
        if largest >= limit:
            for i in range(part.size):
                if np.uint32(part[i] & _MAGNITUDE) >= limit:
                    return start + i
    return -1


def first_nonfinite(values: Float32Array) -> int:
    """Index of the first NaN or infinity in values: float32[n]; -1 when all are finite."""
    return int(_first_magnitude_from(values.view(np.uint32), _INFINITY))


def first_float16_overflow(values: Float32Array) -> int:
    """Index of the first value that is no finite float16 after rounding; -1 when there is none."""
    return int(_first_magnitude_from(values.view(np.uint32), _F16_OVERFLOW))


@kernel
def _sum_of_squares(values: Any) -> float:
    sum0 = sum1 = sum2 = sum3 = 0.0  # independent chains of additions, four times the speed
    whole = values.size - values.size % 4
    for i in range(0, whole, 4):
        sum0 += np.float64(values[i]) * np.float64(values[i])
        sum1 += np.float64(values[i + 1]) * np.float64(values[i + 1])
        sum2 += np.float64(values[i + 2]) * np.float64(values[i + 2])
        sum3 += np.float64(values[i + 3]) * np.float64(values[i + 3])
    for i in range(whole, values.size):
        sum0 += np.float64(values[i]) * np.float64(values[i])
    return (sum0 + sum1) + (sum2 + sum3)


def sum_of_squares(values: Float32Array) -> float:
    """Sum of the squares of values: float32[n], in float64."""
    return float(_sum_of_squares(values))
