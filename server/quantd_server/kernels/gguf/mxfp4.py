"""MXFP4: 32 weights share one power of two (E8M0), codes are E2M1 floats.

Reference: ``quantize_row_mxfp4_ref`` of ggml-quants.c; OCP Microscaling Formats 1.0. Blocks of
17 bytes: exponent, codes[16]; weights i and i + 16 share a byte.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from quantd_server.kernels.compilation import inner_kernel, kernel

# Twice the E2M1 values; half of the shared scale makes up for it. Code 8 (minus zero) is never the
# first of the nearest ones.
DOUBLED_VALUES = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)


@inner_kernel
def half_scale(exponent: Any) -> Any:
    """2 ** (exponent - 128) for an E8M0 byte (``ggml_e8m0_to_fp32_half``)."""
    byte = np.uint32(exponent)
    subnormal = np.uint32(np.uint32(0x00200000) << byte)
    normal = np.uint32((byte - np.uint32(1)) << np.uint32(23))
    return np.uint32(subnormal if byte < np.uint32(2) else normal).view(np.float32)


@kernel
def quantize_mxfp4(values: Any, out: Any) -> None:
    blocks = values.reshape(-1, 32)
    bits = blocks.view(np.int32)
    packed = out.reshape(-1, 17)
    codes = np.empty(32, np.uint8)
    for number in range(blocks.shape[0]):
        xs = blocks[number]
        largest = np.int32(0)
        for index in range(32):
            largest = max(largest, np.int32(bits[number, index] & np.int32(0x7FFFFFFF)))
        exponent = 0
        if largest > 0:
            # Subnormal blocks wrap around, as the reference's conversion to a byte does.
            exponent = math.floor(math.log2(np.int32(largest).view(np.float32))) + 125
        exponent &= 0xFF
        scale = half_scale(exponent)
        block = packed[number]
        block[0] = exponent
        for index in range(32):
            best = np.int32(0)
            least = abs(xs[index])
            for code in range(1, 16):
                error = abs(DOUBLED_VALUES[code] * scale - xs[index])
                best = np.int32(code) if error < least else best
                least = error if error < least else least
            codes[index] = best
        for index in range(16):
            block[1 + index] = codes[index] | (codes[index + 16] << 4)


@kernel
def dequantize_mxfp4(blocks: Any, out: Any) -> None:
    packed = blocks.reshape(-1, 17)
    decoded = out.reshape(-1, 32)
    for number in range(packed.shape[0]):
        block = packed[number]
        scale = half_scale(block[0])
        target = decoded[number]
        for index in range(16):
            target[index] = scale * DOUBLED_VALUES[block[1 + index] & 0xF]
            target[index + 16] = scale * DOUBLED_VALUES[block[1 + index] >> 4]
