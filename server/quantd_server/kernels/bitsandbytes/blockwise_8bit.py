"""Double quantization: the block maxima of a 4-bit weight in 8 bits. Used by workers only (numba).

Equal bit for bit to `bitsandbytes.functional.quantize_blockwise` on a CPU (csrc/cpu_ops.cpp). The
library rounds a value to one of 65536 steps in [-1, 1] first, and looks up the nearest code of the
dynamic map for that step: not always the nearest code of the value, and never the code of zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from quantd_server.kernels.bitsandbytes.tables import DYNAMIC_MAP, NESTED_BLOCK_SIZE
from quantd_server.kernels.bitsandbytes.torch_sum import torch_mean
from quantd_server.kernels.compilation import kernel

Float32Array = npt.NDArray[np.float32]
Uint8Array = npt.NDArray[np.uint8]

_ONE = np.float32(1.0)
_HALF = np.float32(0.5)
_LAST_STEP = np.float32(65535.0)


def _code_of_each_step() -> Uint8Array:
    """Nearest code of the dynamic map for the 65536 steps from -1 to 1, ties to the lower code."""
    code = np.array(DYNAMIC_MAP, np.float32)
    bounds = _HALF * (code[:-1] + code[1:])
    steps = -_ONE + (np.float32(2.0) * np.arange(65536, dtype=np.float32)) / _LAST_STEP
    return np.searchsorted(bounds, steps, side="left").astype(np.uint8)


_CODE = np.array(DYNAMIC_MAP, np.float32)
_CODE_OF_STEP = _code_of_each_step()


@kernel
def _quantize(values: Any, code_of_step: Any, out_codes: Any, out_absmax: Any) -> None:
    for block in range(out_absmax.size):
        start = block * NESTED_BLOCK_SIZE
        stop = min(start + NESTED_BLOCK_SIZE, values.size)
        absmax = np.float32(0.0)
        for i in range(start, stop):
            absmax = max(absmax, abs(values[i]))
        out_absmax[block] = absmax
        if absmax == 0.0:
            out_codes[start:stop] = 0
            continue
        factor = _ONE / absmax
        for i in range(start, stop):
            scaled = values[i] * factor
            if not scaled >= -_ONE:  # also NaN: zero times the infinite factor of a tiny maximum
                out_codes[i] = code_of_step[0]
                continue
            step = (min(scaled, _ONE) + _ONE) * _HALF * _LAST_STEP + _HALF
            out_codes[i] = code_of_step[np.int32(step)]


@kernel
def _dequantize(codes: Any, absmax: Any, offset: Any, code: Any, out: Any) -> None:
    for i in range(codes.size):
        out[i] = np.float32(code[codes[i]] * absmax[i // NESTED_BLOCK_SIZE]) + offset


def quantize_blockwise(values: Float32Array) -> tuple[Uint8Array, Float32Array]:
    """Quantize finite values: float32[m] in blocks of 256 with the dynamic map.

    Returns codes: uint8[m] and the largest magnitude of each block: float32[ceil(m/256)].
    """
    codes = np.empty(values.size, np.uint8)
    absmax = np.empty(-(-values.size // NESTED_BLOCK_SIZE), np.float32)
    _quantize(values, _CODE_OF_STEP, codes, absmax)
    return codes, absmax


def double_quantize(
    absmax: Float32Array, lanes: int | None = None
) -> tuple[Uint8Array, Float32Array, np.float32]:
    """Quantize block maxima: float32[m], m > 0, of one whole weight.

    Returns codes: uint8[m], nested_absmax: float32[ceil(m/256)] and offset: float32, the mean.
    lanes: see `torch_sum.torch_mean`.
    """
    offset = torch_mean(absmax, lanes)
    codes, nested_absmax = quantize_blockwise(absmax - offset)
    return codes, nested_absmax, offset


def dequantize_absmax(
    codes: Uint8Array, nested_absmax: Float32Array, offset: float | np.float32
) -> Float32Array:
    """The block maxima that a reader sees: float32[m]."""
    out = np.empty(codes.size, np.float32)
    _dequantize(codes, nested_absmax, np.float32(offset), _CODE, out)
    return out
