"""4-bit block-wise quantization, NF4 and FP4, on numpy arrays. Used by workers only (numba).

Equal bit for bit to `bitsandbytes.functional.quantize_4bit` on a CPU, which converts float16 and
bfloat16 to float32 first: callers pass float32. A call handles one chunk of a flattened weight;
a chunk starts on a block boundary, and only the last chunk of a weight may end inside a block.
No function keeps state, so threads may work on different chunks at once.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from quantd_server.kernels.bitsandbytes.tables import (
    BLOCK_SIZES,
    QuantType,
    code_table,
    midpoints,
    sorted_codes,
)
from quantd_server.kernels.compilation import inlined_kernel, kernel

Float32Array = npt.NDArray[np.float32]
Uint8Array = npt.NDArray[np.uint8]

_STRIP = 4096  # values worked on at a time: 16 KB stay in the first-level cache
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_SMALLEST_ABSMAX = np.float32(1e-38)  # bitsandbytes' clamp, below the smallest normal float32
_ONE = np.float32(1.0)


def _float32_tuple(values: tuple[float, ...]) -> tuple[np.float32, ...]:
    return tuple(np.float32(value) for value in values)


def _code_steps(quant_type: QuantType) -> tuple[np.uint8, ...]:
    """What to add, modulo 256, to get from each code to the code of the next larger value."""
    codes = sorted_codes(quant_type)
    first = np.uint8(codes[0])
    steps = [np.uint8((high - low) % 256) for low, high in itertools.pairwise(codes)]
    return (first, *steps)


_BOUNDS = {"nf4": _float32_tuple(midpoints("nf4")), "fp4": _float32_tuple(midpoints("fp4"))}
_STEPS = {"nf4": _code_steps("nf4"), "fp4": _code_steps("fp4")}
_CODE = {
    "nf4": np.array(code_table("nf4"), np.float32),
    "fp4": np.array(code_table("fp4"), np.float32),
}


@inlined_kernel
def _nearest_code(value: Any, bounds: Any, steps: Any) -> Any:
    """Code of the nearest table value: one step for every bound below `value`.

    Fifteen compares without a branch are faster than a decision tree: they vectorize.
    """
    b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14 = bounds
    first, s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14 = steps
    none = np.uint8(0)
    code = first
    code = np.uint8(code + (s0 if value > b0 else none))
    code = np.uint8(code + (s1 if value > b1 else none))
    code = np.uint8(code + (s2 if value > b2 else none))
    code = np.uint8(code + (s3 if value > b3 else none))
    code = np.uint8(code + (s4 if value > b4 else none))
    code = np.uint8(code + (s5 if value > b5 else none))
    code = np.uint8(code + (s6 if value > b6 else none))
    code = np.uint8(code + (s7 if value > b7 else none))
    code = np.uint8(code + (s8 if value > b8 else none))
    code = np.uint8(code + (s9 if value > b9 else none))
    code = np.uint8(code + (s10 if value > b10 else none))
    code = np.uint8(code + (s11 if value > b11 else none))
    code = np.uint8(code + (s12 if value > b12 else none))
    code = np.uint8(code + (s13 if value > b13 else none))
    return np.uint8(code + (s14 if value > b14 else none))


@kernel
def _quantize(
    values: Any, bits: Any, bounds: Any, steps: Any, blocksize: int, out_codes: Any, absmax: Any
) -> None:
    """`bits` is `values` viewed as uint32. The clamp to [-1, 1] of bitsandbytes is left out: it
    changes no code, for the outermost bounds lie inside.
    """
    absmax_bits = absmax.view(np.uint32)
    scaled = np.zeros(_STRIP, np.float32)
    codes = np.zeros(_STRIP, np.uint8)
    for start in range(0, values.size, _STRIP):
        stop = min(start + _STRIP, values.size)
        for block_start in range(start, stop, blocksize):
            # Slices, indexed from 0: numba vectorizes no loop whose index might be negative.
            block = values[block_start : min(block_start + blocksize, stop)]
            block_bits = bits[block_start : min(block_start + blocksize, stop)]
            block_scaled = scaled[block_start - start :]
            index = block_start // blocksize
            largest = np.uint32(0)
            for i in range(block_bits.size):  # magnitudes order as their bits do
                largest = max(largest, np.uint32(block_bits[i] & _MAGNITUDE))
            absmax_bits[index] = largest
            divisor = max(absmax[index], _SMALLEST_ABSMAX)
            if block.size == blocksize:
                factor = _ONE / divisor
                for i in range(block.size):
                    block_scaled[i] = block[i] * factor
            else:  # bitsandbytes divides in a cut-off block, and stores the clamped maximum
                absmax[index] = divisor
                for i in range(block.size):
                    block_scaled[i] = block[i] / divisor
        count = stop - start
        if count % 2:
            scaled[count] = 0.0  # an odd weight is padded with a zero
        for i in range(count + count % 2):
            codes[i] = _nearest_code(scaled[i], bounds, steps)
        packed = out_codes[start // 2 : (stop + 1) // 2]
        for i in range(packed.size):
            packed[i] = (codes[2 * i] << 4) | codes[2 * i + 1]


@kernel
def _dequantize(packed: Any, absmax: Any, code: Any, blocksize: int, out: Any) -> None:
    for block in range(absmax.size):
        start = block * blocksize
        stop = min(start + blocksize, out.size)
        scale = absmax[block]
        for i in range(start, stop - 1, 2):
            byte = packed[i // 2]
            out[i] = code[byte >> 4] * scale
            out[i + 1] = code[byte & 15] * scale
        if stop % 2:
            out[stop - 1] = code[packed[stop // 2] >> 4] * scale


@kernel
def _squared_error(values: Any, packed: Any, absmax: Any, code: Any, blocksize: int) -> float:
    high = low = 0.0
    for block in range(absmax.size):
        start = block * blocksize
        stop = min(start + blocksize, values.size)
        scale = absmax[block]
        for i in range(start, stop - 1, 2):
            byte = packed[i // 2]
            first = np.float64(values[i]) - np.float64(code[byte >> 4] * scale)
            second = np.float64(values[i + 1]) - np.float64(code[byte & 15] * scale)
            high += first * first
            low += second * second
        if stop % 2:
            last = np.float64(values[stop - 1])
            last -= np.float64(code[packed[stop // 2] >> 4] * scale)
            high += last * last
    return high + low


def _check(
    size: int, codes: Uint8Array, absmax: Float32Array, quant_type: str, blocksize: int
) -> None:
    if quant_type not in _CODE:
        raise ValueError(f"quant_type is {quant_type!r}; allowed: 'nf4', 'fp4'")
    if blocksize not in BLOCK_SIZES:
        raise ValueError(f"blocksize is {blocksize}; allowed: {', '.join(map(str, BLOCK_SIZES))}")
    if codes.size != (size + 1) // 2:
        raise ValueError(f"{size} values pack into {(size + 1) // 2} bytes; got {codes.size}")
    if absmax.size != -(-size // blocksize):
        raise ValueError(
            f"{size} values in blocks of {blocksize} have {-(-size // blocksize)} block maxima; "
            f"got {absmax.size}"
        )


def quantize_4bit(
    values: Float32Array,
    quant_type: QuantType,
    blocksize: int,
    out_codes: Uint8Array,
    out_absmax: Float32Array,
) -> None:
    """Quantize finite values: float32[n] to out_codes: uint8[ceil(n/2)], first value in the high
    nibble, and out_absmax: float32[ceil(n/blocksize)], the largest magnitude of each block.

    Raises ValueError when the sizes, the type or the block size are not possible.
    """
    _check(values.size, out_codes, out_absmax, quant_type, blocksize)
    bits = values.view(np.uint32)
    bounds, steps = _BOUNDS[quant_type], _STEPS[quant_type]
    _quantize(values, bits, bounds, steps, blocksize, out_codes, out_absmax)


def dequantize_4bit(
    codes: Uint8Array,
    absmax: Float32Array,
    quant_type: QuantType,
    blocksize: int,
    out: Float32Array,
) -> None:
    """Write table value times block maximum to out: float32[n]. Raises ValueError as above."""
    _check(out.size, codes, absmax, quant_type, blocksize)
    _dequantize(codes, absmax, _CODE[quant_type], blocksize, out)


def squared_error_4bit(
    values: Float32Array,
    codes: Uint8Array,
    absmax: Float32Array,
    quant_type: QuantType,
    blocksize: int,
) -> float:
    """Sum of (value - dequantized value)**2 in float64. Raises ValueError as above."""
    _check(values.size, codes, absmax, quant_type, blocksize)
    return float(_squared_error(values, codes, absmax, _CODE[quant_type], blocksize))
