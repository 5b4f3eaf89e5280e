"""Q2_K, Q4_K and Q5_K: 256 weights a block, sub-blocks with a quantized scale and minimum.

Reference: ``quantize_row_q2_K_ref``, ``_q4_K_ref``, ``_q5_K_ref`` of ggml-quants.c.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from quantd_server.kernels.compilation import inner_kernel, kernel
from quantd_server.kernels.gguf.half import store_float16
from quantd_server.kernels.gguf.lanes import (
    GROUP,
    LANES,
    encode_lanes,
    gather_codes,
    load_lanes,
    nearest_int,
)
from quantd_server.kernels.gguf.scale_and_minimum import search_scale_and_minimum

_ZERO = np.float32(0.0)


def _trials(first: float, step: float, count: int, largest_code: int) -> Any:
    """``rmin + rdelta * is + nmax`` of the reference for is = 0..count, in its float32 order."""
    steps = np.arange(count + 1, dtype=np.float32) * np.float32(step)
    return (np.float32(first) + steps) + np.float32(largest_code)


_Q2_K_TRIALS = _trials(-0.5, 0.1, 15, 3)
_Q4_K_TRIALS = _trials(-1.0, 0.1, 20, 15)
_Q5_K_TRIALS = _trials(-0.5, 0.1, 15, 31)


def quantize_q4_k(values: Any, out: Any) -> None:
    """Blocks of 144 bytes: d, dmin, scales[12], codes[128]."""
    _quantize_32(values.reshape(-1, 32), out.reshape(-1, 144), np.int32(15), _Q4_K_TRIALS)


def quantize_q5_k(values: Any, out: Any) -> None:
    """Blocks of 176 bytes: d, dmin, scales[12], high bits[32], codes[128]."""
    _quantize_32(values.reshape(-1, 32), out.reshape(-1, 176), np.int32(31), _Q5_K_TRIALS)


def quantize_q2_k(values: Any, out: Any) -> None:
    """Blocks of 84 bytes: scales[16], codes[64], d, dmin."""
    _quantize_q2_k(values.reshape(-1, 16), out.reshape(-1, 84), _Q2_K_TRIALS)


@kernel
def _quantize_32(values: Any, out: Any, largest_code: Any, trials: Any) -> None:
    """Q4_K and Q5_K: 8 sub-blocks of 32."""
    scales = np.empty(LANES, np.float32)
    minima = np.empty(LANES, np.float32)
    tile = np.empty((4, GROUP * LANES), np.float32)
    weights = np.empty((4, GROUP * LANES), np.float32)
    fit_codes = np.empty((4, GROUP * LANES), np.float32)
    lane_codes = np.empty((4, GROUP * LANES), np.uint8)
    codes = np.empty(256, np.uint8)
    for first in range(0, values.shape[0], LANES):
        lanes = min(LANES, values.shape[0] - first)
        load_lanes(values, first, tile)
        _weigh_by_mean_and_magnitude(tile, weights)
        search_scale_and_minimum(
            tile, weights, largest_code, trials, False, scales, minima, fit_codes
        )
        for lane in range(0, lanes, 8):
            _store_scales_of_6_bits(scales, minima, lane, out[(first + lane) // 8])
        encode_lanes(tile, scales, minima, np.int32(0), largest_code, fit_codes, lane_codes)
        for lane in range(0, lanes, 8):
            block = out[(first + lane) // 8]
            gather_codes(lane_codes, lane, codes)
            if largest_code == 15:
                _pack_low_bits(codes, block[16:])
            else:
                _pack_fifth_bits(codes, block[16:])
                _pack_low_bits(codes, block[48:])


@inner_kernel
def _weigh_by_mean_and_magnitude(tile: Any, weights: Any) -> None:
    """``sqrt(mean of x**2) + |x|`` per lane, over sub-blocks of 32."""
    sums = np.zeros(LANES, np.float32)
    for group in range(tile.shape[0]):
        for lane in range(LANES):
            total = sums[lane]
            for element in range(GROUP):
                x = tile[group, element * LANES + lane]
                total += x * x
            sums[lane] = total
    for lane in range(LANES):
        sums[lane] = np.sqrt(sums[lane] / np.float32(32.0))
    for group in range(tile.shape[0]):
        for lane in range(LANES):
            for element in range(GROUP):
                index = element * LANES + lane
                weights[group, index] = sums[lane] + abs(tile[group, index])


@inner_kernel
def _store_scales_of_6_bits(scales: Any, minima: Any, lane: Any, block: Any) -> None:
    """Write d, dmin and 12 bytes of scales and minima.

    Replaces the 8 scales and minima from ``lane`` on by what they decode to, the minima negated.
    """
    largest_scale = _ZERO
    largest_minimum = _ZERO
    for index in range(lane, lane + 8):
        largest_scale = max(largest_scale, scales[index])
        largest_minimum = max(largest_minimum, -minima[index])
    per_scale = np.float32(63.0) / largest_scale if largest_scale > _ZERO else _ZERO
    per_minimum = np.float32(63.0) / largest_minimum if largest_minimum > _ZERO else _ZERO
    d = store_float16(block, 0, largest_scale / np.float32(63.0))
    d_minimum = store_float16(block, 2, largest_minimum / np.float32(63.0))
    for index in range(8):
        scale = min(nearest_int(per_scale * scales[lane + index]) & 0xFF, 63)
        minimum = min(nearest_int(per_minimum * -minima[lane + index]) & 0xFF, 63)
        scales[lane + index] = d * np.float32(scale)
        minima[lane + index] = d_minimum * np.float32(minimum)
        if index < 4:
            block[4 + index] = scale
            block[8 + index] = minimum
        else:
            block[8 + index] = (scale & 0xF) | ((minimum & 0xF) << 4)
            block[index] |= (scale >> 4) << 6
            block[4 + index] |= (minimum >> 4) << 6


@inner_kernel
def _pack_low_bits(codes: Any, out: Any) -> None:
    """Low 4 bits: byte i of quarter q holds codes 64 q + i and 64 q + 32 + i."""
    for quarter in range(4):
        for index in range(32):
            low = codes[64 * quarter + index] & 0xF
            high = codes[64 * quarter + 32 + index] & 0xF
            out[32 * quarter + index] = low | (high << 4)


@inner_kernel
def _pack_fifth_bits(codes: Any, out: Any) -> None:
    """Bit b of byte i is bit 4 of code 32 b + i."""
    for index in range(32):
        bits = 0
        for sub_block in range(8):
            bits |= (codes[32 * sub_block + index] >> 4) << sub_block
        out[index] = bits


@kernel
def _quantize_q2_k(values: Any, out: Any, trials: Any) -> None:
    """16 sub-blocks of 16, errors and weights by magnitude."""
    scales = np.empty(LANES, np.float32)
    minima = np.empty(LANES, np.float32)
    tile = np.empty((2, GROUP * LANES), np.float32)
    fit_codes = np.empty((2, GROUP * LANES), np.float32)
    lane_codes = np.empty((2, GROUP * LANES), np.uint8)
    codes = np.empty(256, np.uint8)
    for first in range(0, values.shape[0], LANES):
        lanes = min(LANES, values.shape[0] - first)
        load_lanes(values, first, tile)
        search_scale_and_minimum(
            tile, np.abs(tile), np.int32(3), trials, True, scales, minima, fit_codes
        )
        for lane in range(0, lanes, 16):
            _store_scales_of_4_bits(scales, minima, lane, out[(first + lane) // 16])
        encode_lanes(tile, scales, minima, np.int32(0), np.int32(3), fit_codes, lane_codes)
        for lane in range(0, lanes, 16):
            gather_codes(lane_codes, lane, codes)
            pack_2_bits(codes, out[(first + lane) // 16][16:])


@inner_kernel
def _store_scales_of_4_bits(scales: Any, minima: Any, lane: Any, block: Any) -> None:
    """Write scales, minima, d and dmin.

    Replaces the 16 scales and minima from ``lane`` on by what they decode to, the minima negated.
    """
    largest_scale = _ZERO
    largest_minimum = _ZERO
    for index in range(lane, lane + 16):
        largest_scale = max(largest_scale, scales[index])
        largest_minimum = max(largest_minimum, -minima[index])
    per_scale = np.float32(15.0) / largest_scale if largest_scale > _ZERO else _ZERO
    per_minimum = np.float32(15.0) / largest_minimum if largest_minimum > _ZERO else _ZERO
    d = store_float16(block, 80, largest_scale / np.float32(15.0))
    d_minimum = store_float16(block, 82, largest_minimum / np.float32(15.0))
    for index in range(16):
        scale = nearest_int(per_scale * scales[lane + index])
        minimum = nearest_int(per_minimum * -minima[lane + index])
        packed = (scale | (minimum << 4)) & 0xFF
        block[index] = packed
        scales[lane + index] = d * np.float32(packed & 0xF)
        minima[lane + index] = d_minimum * np.float32(packed >> 4)


@inner_kernel
def pack_2_bits(codes: Any, out: Any) -> None:
    """Low 2 bits: byte i of half h holds codes 128 h + i, + 32, + 64, + 96."""
    for half in range(2):
        for index in range(32):
            bits = 0
            for quarter in range(4):
                bits |= (codes[128 * half + 32 * quarter + index] & 3) << (2 * quarter)
            out[32 * half + index] = bits
