"""float16 and bfloat16 from and to float32, bit for bit (numba has no float16 on CPUs).

Rounding is to nearest, ties to even; too large magnitudes become infinity; subnormals are kept.
Formats: IEEE 754-2008 binary16, and the upper half of binary32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from quantd_server.kernels.compilation import inner_kernel, kernel


@inner_kernel
def float16_bits(value: Any) -> Any:
    """Bits (uint32 below 2**16) of the float16 nearest to a float32."""
    bits = np.float32(value).view(np.uint32)
    sign = np.uint32((bits >> np.uint32(16)) & np.uint32(0x8000))
    magnitude = np.uint32(bits & np.uint32(0x7FFFFFFF))
    # Subnormals: adding 0.5 puts the last bit of the float16 at the last bit of the sum.
    shifted = np.float32(np.uint32(magnitude).view(np.float32) + np.float32(0.5)).view(np.uint32)
    subnormal = np.uint32(shifted - np.uint32(0x3F000000))
    # A carry out of the mantissa moves to the next exponent, in the end to infinity.
    odd = np.uint32((magnitude >> np.uint32(13)) & np.uint32(1))
    rounded = np.uint32(magnitude + np.uint32(0xFFF) + odd - np.uint32(0x38000000))
    result = np.uint32(rounded >> np.uint32(13))
    if magnitude < np.uint32(0x38800000):  # below 2**-14
        result = subnormal
    if magnitude >= np.uint32(0x47800000):  # 2**16 and above
        result = np.uint32(0x7C00)
    if magnitude > np.uint32(0x7F800000):  # NaN
        result = np.uint32(0x7E00)
    return np.uint32(sign | result)


@inner_kernel
def float16_value(bits: Any) -> Any:
    """float32 value of a float16 given as bits."""
    wide = np.uint32(bits)
    sign = np.uint32((wide & np.uint32(0x8000)) << np.uint32(16))
    shifted = np.uint32((wide & np.uint32(0x7FFF)) << np.uint32(13))
    # The exponents differ by 112: scaling by 2**112 is exact and also normalizes subnormals.
    scaled = np.float32(np.uint32(shifted).view(np.float32) * np.float32(2.0**112)).view(np.uint32)
    infinite_or_nan = np.uint32(shifted | np.uint32(0x7F800000))
    magnitude = infinite_or_nan if shifted >= np.uint32(0x0F800000) else scaled
    return np.uint32(sign | magnitude).view(np.float32)


@inner_kernel
def load_float16(block: Any, offset: Any) -> Any:
    """The little-endian float16 at ``block[offset]``, as float32."""
    return float16_value(np.uint32(block[offset]) | (np.uint32(block[offset + 1]) << np.uint32(8)))


@inner_kernel
def store_float16(block: Any, offset: Any, value: Any) -> Any:
    """Store a float32 as little-endian float16 and return the float32 that reads back."""
    bits = float16_bits(value)
    block[offset] = np.uint8(bits)
    block[offset + 1] = np.uint8(bits >> np.uint32(8))
    return float16_value(bits)


@kernel
def quantize_f16(values: Any, out: Any) -> None:
    for row in range(values.shape[0]):
        source = values[row]
        target = out[row].view(np.uint16)
        for column in range(source.size):
            target[column] = float16_bits(source[column])


@kernel
def dequantize_f16(blocks: Any, out: Any) -> None:
    for row in range(blocks.shape[0]):
        source = blocks[row].view(np.uint16)
        target = out[row]
        for column in range(target.size):
            target[column] = float16_value(source[column])


@kernel
def quantize_bf16(values: Any, out: Any) -> None:
    for row in range(values.shape[0]):
        source = values[row].view(np.uint32)
        target = out[row].view(np.uint16)
        for column in range(source.size):
            bits = source[column]
            odd = (bits >> np.uint32(16)) & np.uint32(1)
            rounded = np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
            nan = np.uint32(bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
            quiet = (bits >> np.uint32(16)) | np.uint32(64)
            target[column] = quiet if nan else rounded


@kernel
def dequantize_bf16(blocks: Any, out: Any) -> None:
    for row in range(blocks.shape[0]):
        source = blocks[row].view(np.uint16)
        target = out[row].view(np.uint32)
        for column in range(target.size):
            target[column] = np.uint32(source[column]) << np.uint32(16)
