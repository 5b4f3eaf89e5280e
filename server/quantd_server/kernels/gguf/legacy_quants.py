"""Q8_0, Q4_0, Q4_1, Q5_0, Q5_1: blocks of 32 weights with one float16 scale (and minimum).

Reference: ``quantize_row_q*_ref`` and ``dequantize_row_q*`` of ggml-quants.c. Weights of code i and
i + 16 share a byte.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from quantd_server.kernels.compilation import inner_kernel, kernel
from quantd_server.kernels.gguf.half import load_float16, store_float16

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_INT32_RANGE = np.float32(2.0**31)


@kernel
def quantize_q8_0(values: Any, out: Any) -> None:
    """Blocks of 34 bytes: d, int8 codes[32]."""
    blocks = values.reshape(-1, 32)
    bits = blocks.view(np.int32)
    packed = out.reshape(-1, 34)
    for number in range(blocks.shape[0]):
        xs = blocks[number]
        block = packed[number]
        # Magnitudes of finite floats compare like their bits, and integer maxima vectorize.
        largest = np.int32(0)
        for index in range(32):
            largest = max(largest, np.int32(bits[number, index] & np.int32(0x7FFFFFFF)))
        d = np.int32(largest).view(np.float32) / np.float32(127.0)
        inverse = _ZERO if d == _ZERO else _ONE / d
        store_float16(block, 0, d)
        codes = block[2:]
        for index in range(32):
            codes[index] = np.uint8(_round_half_away(xs[index] * inverse))


@inner_kernel
def _round_half_away(value: Any) -> Any:
    """``roundf`` to int32; zero for infinity and NaN, which a subnormal d leads to."""
    finite = value if abs(value) < np.float32(2.0**30) else _ZERO
    whole = np.int32(finite)
    rest = finite - np.float32(whole)
    up = np.int32(1) if rest >= np.float32(0.5) else np.int32(0)
    down = np.int32(1) if rest <= np.float32(-0.5) else np.int32(0)
    return np.int32(whole + up - down)


@inner_kernel
def _truncate(value: Any) -> Any:
    """``(int8_t) value`` as C compilers do it on x86 and ARM; zero for infinity and NaN."""
    finite = value if abs(value) < _INT32_RANGE else _ZERO
    return np.int8(np.int32(finite))


@inner_kernel
def _find_extreme(bits: Any) -> Any:
    """The first of 32 float32, given as int32 bits, of largest magnitude, with its sign."""
    best = np.int64(0)
    for index in range(32):
        word = np.int64(bits[index])
        key = ((word & 0x7FFFFFFF) << 6) | ((31 - index) << 1) | ((word >> 31) & 1)
        best = max(best, key)
    if best >> 6 == 0:
        return _ZERO  # never minus zero
    return np.uint32((best >> 6) | ((best & 1) << 31)).view(np.float32)


@kernel
def quantize_q4_0(values: Any, out: Any) -> None:
    """Blocks of 18 bytes: d, codes[16]."""
    blocks = values.reshape(-1, 32)
    bits = blocks.view(np.int32)
    packed = out.reshape(-1, 18)
    for number in range(blocks.shape[0]):
        xs = blocks[number]
        block = packed[number]
        d = _find_extreme(bits[number]) / np.float32(-8.0)
        inverse = _ZERO if d == _ZERO else _ONE / d
        store_float16(block, 0, d)
        codes = block[2:]
        for index in range(16):
            low = min(_truncate(xs[index] * inverse + np.float32(8.5)), 15)
            high = min(_truncate(xs[index + 16] * inverse + np.float32(8.5)), 15)
            codes[index] = np.uint8(low) | np.uint8(high << 4)


@kernel
def quantize_q5_0(values: Any, out: Any) -> None:
    """Blocks of 22 bytes: d, fifth bits[4], codes[16]."""
    blocks = values.reshape(-1, 32)
    bits = blocks.view(np.int32)
    packed = out.reshape(-1, 22)
    for number in range(blocks.shape[0]):
        block = packed[number]
        d = _find_extreme(bits[number]) / np.float32(-16.0)
        inverse = _ZERO if d == _ZERO else _ONE / d
        store_float16(block, 0, d)
        _store_codes_of_5_bits(blocks[number], _ZERO, inverse, np.float32(16.5), block[2:])


@kernel
def quantize_q4_1(values: Any, out: Any) -> None:
    """Blocks of 20 bytes: d, minimum, codes[16]."""
    blocks = values.reshape(-1, 32)
    packed = out.reshape(-1, 20)
    for number in range(blocks.shape[0]):
        xs = blocks[number]
        block = packed[number]
        minimum, maximum = _range(xs)
        d = (maximum - minimum) / np.float32(15.0)
        inverse = _ZERO if d == _ZERO else _ONE / d
        store_float16(block, 0, d)
        store_float16(block, 2, minimum)
        codes = block[4:]
        for index in range(16):
            low = min(_truncate((xs[index] - minimum) * inverse + np.float32(0.5)), 15)
            high = min(_truncate((xs[index + 16] - minimum) * inverse + np.float32(0.5)), 15)
            codes[index] = np.uint8(low) | np.uint8(high << 4)


@kernel
def quantize_q5_1(values: Any, out: Any) -> None:
    """Blocks of 24 bytes: d, minimum, fifth bits[4], codes[16]."""
    blocks = values.reshape(-1, 32)
    packed = out.reshape(-1, 24)
    for number in range(blocks.shape[0]):
        block = packed[number]
        minimum, maximum = _range(blocks[number])
        d = (maximum - minimum) / np.float32(31.0)
        inverse = _ZERO if d == _ZERO else _ONE / d
        store_float16(block, 0, d)
        store_float16(block, 2, minimum)
        _store_codes_of_5_bits(blocks[number], minimum, inverse, np.float32(0.5), block[4:])


@inner_kernel
def _range(xs: Any) -> Any:
    """Smallest and largest of 32 values, the first of equal ones (zeros differ in sign)."""
    low = xs[0]
    high = xs[0]
    for index in range(1, 32):
        low = xs[index] if xs[index] < low else low
        high = xs[index] if xs[index] > high else high
    return low, high


@inner_kernel
def _store_codes_of_5_bits(xs: Any, minimum: Any, inverse: Any, shift: Any, target: Any) -> None:
    codes = target[4:]
    fifth = np.uint32(0)
    for index in range(16):
        low = min(_truncate((xs[index] - minimum) * inverse + shift), 31)
        high = min(_truncate((xs[index + 16] - minimum) * inverse + shift), 31)
        codes[index] = np.uint8(low & 0xF) | np.uint8((high & 0xF) << 4)
        fifth |= np.uint32((low >> 4) & 1) << np.uint32(index)
        fifth |= np.uint32((high >> 4) & 1) << np.uint32(index + 16)
    for byte in range(4):
        target[byte] = np.uint8(fifth >> np.uint32(8 * byte))


@kernel
def dequantize_q8_0(blocks: Any, out: Any) -> None:
    packed = blocks.reshape(-1, 34)
    decoded = out.reshape(-1, 32)
    for number in range(packed.shape[0]):
        block = packed[number]
        d = load_float16(block, 0)
        codes = block[2:]
        target = decoded[number]
        for index in range(32):
            target[index] = np.float32(np.int8(codes[index])) * d


@kernel
def dequantize_q4_0(blocks: Any, out: Any) -> None:
    packed = blocks.reshape(-1, 18)
    decoded = out.reshape(-1, 32)
    for number in range(packed.shape[0]):
        block = packed[number]
        d = load_float16(block, 0)
        codes = block[2:]
        target = decoded[number]
        for index in range(16):
            target[index] = d * np.float32(np.int32(codes[index] & 0xF) - 8)
            target[index + 16] = d * np.float32(np.int32(codes[index] >> 4) - 8)


@kernel
def dequantize_q4_1(blocks: Any, out: Any) -> None:
    packed = blocks.reshape(-1, 20)
    decoded = out.reshape(-1, 32)
    for number in range(packed.shape[0]):
        block = packed[number]
        d = load_float16(block, 0)
        minimum = load_float16(block, 2)
        codes = block[4:]
        target = decoded[number]
        for index in range(16):
            target[index] = d * np.float32(codes[index] & 0xF) + minimum
            target[index + 16] = d * np.float32(codes[index] >> 4) + minimum


@kernel
def dequantize_q5_0(blocks: Any, out: Any) -> None:
    packed = blocks.reshape(-1, 22)
    decoded = out.reshape(-1, 32)
    codes = np.empty(32, np.int32)
    for number in range(packed.shape[0]):
        block = packed[number]
        d = load_float16(block, 0)
        _load_codes_of_5_bits(block[2:], codes)
        target = decoded[number]
        for index in range(32):
            target[index] = d * np.float32(codes[index] - 16)


@kernel
def dequantize_q5_1(blocks: Any, out: Any) -> None:
    packed = blocks.reshape(-1, 24)
    decoded = out.reshape(-1, 32)
    codes = np.empty(32, np.int32)
    for number in range(packed.shape[0]):
        block = packed[number]
        d = load_float16(block, 0)
        minimum = load_float16(block, 2)
        _load_codes_of_5_bits(block[4:], codes)
        target = decoded[number]
        for index in range(32):
            target[index] = d * np.float32(codes[index]) + minimum


@inner_kernel
def _load_codes_of_5_bits(source: Any, codes: Any) -> None:
    fifth = np.uint32(0)
    for byte in range(4):
        fifth |= np.uint32(source[byte]) << np.uint32(8 * byte)
    low_bits = source[4:]
    for index in range(16):
        low = np.int32((fifth >> np.uint32(index)) & np.uint32(1))
        high = np.int32((fifth >> np.uint32(index + 16)) & np.uint32(1))
        codes[index] = np.int32(low_bits[index] & 0xF) | (low << 4)
        codes[index + 16] = np.int32(low_bits[index] >> 4) | (high << 4)
