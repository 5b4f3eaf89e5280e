"""Q3_K and Q6_K: 256 weights a block, 16 sub-blocks with a quantized scale and no minimum.

Reference: ``quantize_row_q3_K_ref`` and ``quantize_row_q6_K_ref`` of ggml-quants.c.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from quantd_server.kernels.compilation import inner_kernel, kernel
from quantd_server.kernels.gguf.half import store_float16
from quantd_server.kernels.gguf.k_quants_with_minimum import pack_2_bits
from quantd_server.kernels.gguf.lanes import (
    GROUP,
    LANES,
    encode_lanes,
    gather_codes,
    load_lanes,
    nearest_int,
)
from quantd_server.kernels.gguf.symmetric_scale import NEGLIGIBLE, refine_scale, search_scale

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)

# ``-(nmax + 0.1f * is)`` for is = 0, then -9..9.
_Q6_K_TRIALS = -(
    np.float32(32.0)
    + np.float32(0.1) * np.array([0, *range(-9, 0), *range(1, 10)], dtype=np.float32)
)


def quantize_q6_k(values: Any, out: Any) -> None:
    """Blocks of 210 bytes: low bits[128], high bits[64], int8 scales[16], d."""
    _quantize_q6_k(values.reshape(-1, 16), out.reshape(-1, 210), _Q6_K_TRIALS)


def quantize_q3_k(values: Any, out: Any) -> None:
    """Blocks of 110 bytes: high bits[32], low bits[64], scales[12], d."""
    _quantize_q3_k(values.reshape(-1, 16), out.reshape(-1, 110))


@kernel
def _quantize_q6_k(values: Any, out: Any, trials: Any) -> None:
    scales = np.empty(LANES, np.float32)
    minima = np.zeros(LANES, np.float32)
    tile = np.empty((2, GROUP * LANES), np.float32)
    fit_codes = np.empty((2, GROUP * LANES), np.float32)
    lane_codes = np.empty((2, GROUP * LANES), np.uint8)
    codes = np.empty(256, np.uint8)
    for first in range(0, values.shape[0], LANES):
        lanes = min(LANES, values.shape[0] - first)
        load_lanes(values, first, tile)
        search_scale(tile, np.int32(32), trials, scales, fit_codes)
        for lane in range(0, lanes, 16):
            _store_scales_of_8_bits(scales, lane, fit_codes, out[(first + lane) // 16])
        encode_lanes(tile, scales, minima, np.int32(-32), np.int32(31), fit_codes, lane_codes)
        for lane in range(0, lanes, 16):
            gather_codes(lane_codes, lane, codes)
            _pack_6_bits(codes, out[(first + lane) // 16])


@kernel
def _quantize_q3_k(values: Any, out: Any) -> None:
    scales = np.empty(LANES, np.float32)
    minima = np.zeros(LANES, np.float32)
    tile = np.empty((2, GROUP * LANES), np.float32)
    fit_codes = np.empty((2, GROUP * LANES), np.float32)
    lane_codes = np.empty((2, GROUP * LANES), np.uint8)
    codes = np.empty(256, np.uint8)
    for first in range(0, values.shape[0], LANES):
        lanes = min(LANES, values.shape[0] - first)
        load_lanes(values, first, tile)
        refine_scale(tile, np.int32(4), scales, fit_codes)
        for lane in range(0, lanes, 16):
            _store_scales_of_6_bits(scales, lane, out[(first + lane) // 16])
        encode_lanes(tile, scales, minima, np.int32(-4), np.int32(3), fit_codes, lane_codes)
        for lane in range(0, lanes, 16):
            block = out[(first + lane) // 16]
            gather_codes(lane_codes, lane, codes)
            pack_2_bits(codes, block[32:])
            _pack_third_bits(codes, block)


@inner_kernel
def _store_scales_of_8_bits(scales: Any, lane: Any, fit_codes: Any, block: Any) -> None:
    """Write int8 scales and d; replace the 16 scales by what they decode to."""
    extreme = _scale_of_largest_magnitude(scales, lane)
    zero = abs(extreme) < NEGLIGIBLE
    per_scale = _ZERO if zero else np.float32(-128.0) / extreme
    d = store_float16(block, 208, _ZERO if zero else _ONE / per_scale)
    for index in range(16):
        scale = np.int8(min(np.int32(127), nearest_int(per_scale * scales[lane + index])))
        block[192 + index] = np.uint8(scale)
        scales[lane + index] = d * np.float32(scale)
        if zero:  # the reference clears the whole block, codes included
            for group in range(2):
                for element in range(GROUP):
                    fit_codes[group, element * LANES + lane + index] = _ZERO


@inner_kernel
def _store_scales_of_6_bits(scales: Any, lane: Any, block: Any) -> None:
    """Write packed scales and d; replace the 16 scales by what they decode to."""
    extreme = _scale_of_largest_magnitude(scales, lane)
    zero = extreme == _ZERO
    per_scale = _ZERO if zero else np.float32(-32.0) / extreme
    d = store_float16(block, 108, _ZERO if zero else _ONE / per_scale)
    block[96:108] = 0
    for index in range(16):
        rounded = np.int8(nearest_int(per_scale * scales[lane + index]))
        code = np.int32(-32) if zero else min(max(np.int32(rounded), np.int32(-32)), np.int32(31))
        scales[lane + index] = d * np.float32(code)
        # Low nibbles in bytes 0..7, the top bits of codes i, i + 4, i + 8, i + 12 in byte 8 + i.
        shifted = code + 32
        block[96 + index % 8] |= (shifted & 0xF) << (index // 8 * 4)
        block[104 + index % 4] |= (shifted >> 4) << (index // 4 * 2)


@inner_kernel
def _scale_of_largest_magnitude(scales: Any, lane: Any) -> Any:
    """The first of the 16 scales from ``lane`` on with the largest magnitude."""
    found = _ZERO
    for index in range(lane, lane + 16):
        if abs(scales[index]) > abs(found):
            found = scales[index]
    return found


@inner_kernel
def _pack_third_bits(codes: Any, out: Any) -> None:
    """Bit b of byte i is bit 2 of code 32 b + i."""
    for index in range(32):
        bits = 0
        for eighth in range(8):
            bits |= (codes[32 * eighth + index] >> 2) << eighth
        out[index] = bits


@inner_kernel
def _pack_6_bits(codes: Any, out: Any) -> None:
    """Low nibbles in bytes 0..127, then bits 4 and 5 in 64 bytes."""
    for half in range(2):
        start = 128 * half
        for index in range(32):
            a = codes[start + index]
            b = codes[start + 32 + index]
            c = codes[start + 64 + index]
            d = codes[start + 96 + index]
            out[64 * half + index] = (a & 0xF) | ((c & 0xF) << 4)
            out[64 * half + 32 + index] = (b & 0xF) | ((d & 0xF) << 4)
            out[128 + 32 * half + index] = (
                (a >> 4) | ((b >> 4) << 2) | ((c >> 4) << 4) | ((d >> 4) << 6)
            )
