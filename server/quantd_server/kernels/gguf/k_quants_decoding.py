"""Decoding of Q2_K to Q6_K, in the layouts that the two quantizing modules describe.

Reference: ``dequantize_row_q*_K`` of ggml-quants.c.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from quantd_server.kernels.compilation import inner_kernel, kernel
from quantd_server.kernels.gguf.half import load_float16


@kernel
def dequantize_q2_k(blocks: Any, out: Any) -> None:
    packed = blocks.reshape(-1, 84)
    decoded = out.reshape(-1, 256)
    for number in range(packed.shape[0]):
        block = packed[number]
        d = load_float16(block, 80)
        d_minimum = load_float16(block, 82)
        for sub_block in range(16):
            scale = d * np.float32(block[sub_block] & 0xF)
            minimum = d_minimum * np.float32(block[sub_block] >> 4)
            codes, shift = _two_bit_codes(block[16:], sub_block)
            target = decoded[number, 16 * sub_block :]
            for index in range(16):
                target[index] = scale * np.float32((codes[index] >> shift) & 3) - minimum


@inner_kernel
def _two_bit_codes(codes: Any, sub_block: Any) -> Any:
    """The 16 bytes that hold a sub-block's codes, and the codes' position in each byte."""
    half = sub_block // 8
    return codes[32 * half + 16 * (sub_block % 2) :], sub_block % 8 // 2 * 2


@kernel
def dequantize_q3_k(blocks: Any, out: Any) -> None:
    packed = blocks.reshape(-1, 110)
    decoded = out.reshape(-1, 256)
    for number in range(packed.shape[0]):
        block = packed[number]
        d = load_float16(block, 108)
        for sub_block in range(16):
            low = (block[96 + sub_block % 8] >> (sub_block // 8 * 4)) & 0xF
            high = (block[104 + sub_block % 4] >> (sub_block // 4 * 2)) & 3
            scale = d * np.float32(np.int32(low | (high << 4)) - 32)
            codes, shift = _two_bit_codes(block[32:], sub_block)
            third = block[16 * (sub_block % 2) :]
            third_shift = sub_block // 2
            target = decoded[number, 16 * sub_block :]
            for index in range(16):
                bit = (third[index] >> third_shift) & 1
                code = np.int32((codes[index] >> shift) & 3) + 4 * np.int32(bit) - 4
                target[index] = scale * np.float32(code)


@kernel
def dequantize_q4_k(blocks: Any, out: Any) -> None:
    packed = blocks.reshape(-1, 144)
    decoded = out.reshape(-1, 256)
    for number in range(packed.shape[0]):
        block = packed[number]
        d = load_float16(block, 0)
        d_minimum = load_float16(block, 2)
        for sub_block in range(8):
            scale, minimum = _scale_and_minimum_of_6_bits(block[4:], sub_block)
            scale = d * scale
            minimum = d_minimum * minimum
            codes = block[16 + 32 * (sub_block // 2) :]
            shift = sub_block % 2 * 4
            target = decoded[number, 32 * sub_block :]
            for index in range(32):
                target[index] = scale * np.float32((codes[index] >> shift) & 0xF) - minimum


@kernel
def dequantize_q5_k(blocks: Any, out: Any) -> None:
    packed = blocks.reshape(-1, 176)
    decoded = out.reshape(-1, 256)
    for number in range(packed.shape[0]):
        block = packed[number]
        d = load_float16(block, 0)
        d_minimum = load_float16(block, 2)
        fifth = block[16:]
        for sub_block in range(8):
            scale, minimum = _scale_and_minimum_of_6_bits(block[4:], sub_block)
            scale = d * scale
            minimum = d_minimum * minimum
            codes = block[48 + 32 * (sub_block // 2) :]
            shift = sub_block % 2 * 4
            target = decoded[number, 32 * sub_block :]
            for index in range(32):
                low = (codes[index] >> shift) & 0xF
                high = (fifth[index] >> sub_block) & 1
                target[index] = scale * np.float32(low | (high << 4)) - minimum


@inner_kernel
def _scale_and_minimum_of_6_bits(packed: Any, index: Any) -> Any:
    if index < 4:
        return np.float32(packed[index] & 63), np.float32(packed[index + 4] & 63)
    scale = (packed[index + 4] & 0xF) | ((packed[index - 4] >> 6) << 4)
    minimum = (packed[index + 4] >> 4) | ((packed[index] >> 6) << 4)
    return np.float32(scale), np.float32(minimum)


@kernel
def dequantize_q6_k(blocks: Any, out: Any) -> None:
    packed = blocks.reshape(-1, 210)
    decoded = out.reshape(-1, 256)
    for number in range(packed.shape[0]):
        block = packed[number]
        d = load_float16(block, 208)
        for sub_block in range(16):
            half = sub_block // 8
            quarter = sub_block % 8 // 2
            start = 16 * (sub_block % 2)
            low = block[64 * half + 32 * (quarter % 2) + start :]
            high = block[128 + 32 * half + start :]
            low_shift = quarter // 2 * 4
            high_shift = quarter * 2
            scale = d * np.float32(np.int8(block[192 + sub_block]))
            target = decoded[number, 16 * sub_block :]
            for index in range(16):
                code = ((low[index] >> low_shift) & 0xF) | (((high[index] >> high_shift) & 3) << 4)
                target[index] = scale * np.float32(np.int32(code) - 32)
