"""LLM.int8 weights: 8 bits with one scale a row, on numpy arrays. Used by workers only (numba).

Equal bit for bit to what `bitsandbytes.nn.Int8Params` computes on a CPU: weights become float16
first, whatever their dtype, then `int8_vectorwise_quant` with threshold 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from quantd_server.kernels.compilation import kernel
from quantd_server.kernels.dtypes import float16_to_float32, float32_to_float16

Float32Array = npt.NDArray[np.float32]
Int8Array = npt.NDArray[np.int8]

_ONE = np.float32(1.0)
_LARGEST_CODE = np.float32(127.0)
_RECIPROCAL = np.float32(7.874015718698502e-3)  # 1/127, as bitsandbytes writes it
_ROUNDER = np.float32(12582912.0)  # 1.5 * 2**23: adding and taking it away rounds half to even
_MAGNITUDE = np.uint32(0x7FFFFFFF)


@kernel
def _quantize(values: Any, out: Any, out_scale: Any) -> None:
    rows, columns = values.shape
    halves = np.empty(columns, np.float32)
    bits = halves.view(np.uint32)
    scale_bits = out_scale.view(np.uint32)
    for row in range(rows):
        for i in range(columns):
            halves[i] = float16_to_float32(float32_to_float16(values[row, i]))
        largest = np.uint32(0)
        for i in range(columns):
            largest = max(largest, np.uint32(bits[i] & _MAGNITUDE))
        scale_bits[row] = largest
        if largest == 0:
            out[row, :] = 0
            continue
        # torch computes `127.0 / scale` as reciprocal times 127: two roundings.
        factor = np.float32(_ONE / out_scale[row]) * _LARGEST_CODE
        for i in range(columns):
            out[row, i] = np.int8(np.int32((halves[i] * factor + _ROUNDER) - _ROUNDER))


@kernel
def _dequantize(codes: Any, scale: Any, out: Any) -> None:
    rows, columns = codes.shape
    for row in range(rows):
        for i in range(columns):
            out[row, i] = np.float32(np.float32(codes[row, i]) * scale[row]) * _RECIPROCAL


@kernel
def _squared_error(values: Any, codes: Any, scale: Any) -> float:
    rows, columns = codes.shape
    dequantized = np.empty(columns, np.float32)
    even = odd = 0.0
    for row in range(rows):
        for i in range(columns):
            dequantized[i] = np.float32(np.float32(codes[row, i]) * scale[row]) * _RECIPROCAL
        for i in range(0, columns - 1, 2):
            first = np.float64(values[row, i]) - np.float64(dequantized[i])
            second = np.float64(values[row, i + 1]) - np.float64(dequantized[i + 1])
            even += first * first
            odd += second * second
        if columns % 2:
            last = np.float64(values[row, columns - 1]) - np.float64(dequantized[columns - 1])
            even += last * last
    return even + odd


def _check(shape: tuple[int, ...], codes: Int8Array, scale: Float32Array) -> None:
    if len(shape) != 2:
        raise ValueError(f"values have shape {shape}; LLM.int8 needs [rows, columns]")
    if codes.shape != shape or scale.shape != shape[:1]:
        raise ValueError(
            f"values {shape} need codes {shape} and scales {shape[:1]}; "
            f"got {codes.shape} and {scale.shape}"
        )


def quantize_8bit_rows(values: Float32Array, out: Int8Array, out_scale: Float32Array) -> None:
    """Quantize values: float32[rows, columns] to out: int8[rows, columns] and out_scale (SCB):
    float32[rows], the largest magnitude of each row in float16.

    Values must be finite in float16 (see `dtypes.first_float16_overflow`). Rows may come in chunks.
    Raises ValueError when the shapes do not fit.
    """
    _check(values.shape, out, out_scale)
    _quantize(values, out, out_scale)


def dequantize_8bit_rows(codes: Int8Array, scale: Float32Array, out: Float32Array) -> None:
    """Write codes * scale / 127 to out: float32[rows, columns]. Raises ValueError as above."""
    _check(out.shape, codes, scale)
    _dequantize(codes, scale, out)


def squared_error_8bit(values: Float32Array, codes: Int8Array, scale: Float32Array) -> float:
    """Sum of (value - dequantized value)**2 in float64. Raises ValueError as above."""
    _check(values.shape, codes, scale)
    return float(_squared_error(values, codes, scale))
