"""IQ4_NL and IQ4_XS: 4-bit codes for 16 unevenly spaced values.

Reference: ``quantize_row_iq4_nl_impl`` of ggml-quants.c without importance (weights are squares).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from quantd_server.kernels.compilation import inner_kernel, kernel
from quantd_server.kernels.gguf.half import load_float16, store_float16
from quantd_server.kernels.gguf.lanes import GROUP, LANES, gather_codes, load_lanes, nearest_int
from quantd_server.kernels.gguf.symmetric_scale import (
    BEST,
    EXTREME,
    FACTOR,
    FIELDS,
    NEGLIGIBLE,
    SCALE,
    SUM_L2,
    SUM_LX,
    find_extreme,
    keep_better,
)

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)

VALUES = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32
)
"""``kvalues_iq4nl`` of ggml-common.h."""

# The reference finds the nearest value by binary search and rounded differences. These midpoints
# are exact, and around each of them so are both differences: comparing with them is equal.
_MIDPOINTS = (VALUES[1:] + VALUES[:-1]) / np.float32(2.0)

# ``itry + values[0]`` for itry = -7..7.
_TRIALS = np.arange(-7, 8, dtype=np.float32) + VALUES[0]


def quantize_iq4_nl(values: Any, out: Any) -> None:
    """Blocks of 18 bytes for 32 weights: d, codes[16]."""
    _quantize_iq4_nl(values.reshape(-1, 32), out.reshape(-1, 18), _TRIALS)


def quantize_iq4_xs(values: Any, out: Any) -> None:
    """Blocks of 136 bytes for 256 weights: d, high scale bits[2], low scale bits[4], codes[128]."""
    _quantize_iq4_xs(values.reshape(-1, 32), out.reshape(-1, 136), _TRIALS)


@kernel
def _quantize_iq4_nl(values: Any, out: Any, trials: Any) -> None:
    scales = np.empty(LANES, np.float32)
    inverses = np.empty(LANES, np.float32)
    tile = np.empty((4, GROUP * LANES), np.float32)
    lane_codes = np.empty((4, GROUP * LANES), np.uint8)
    codes = np.empty(256, np.uint8)
    for first in range(0, values.shape[0], LANES):
        lanes = min(LANES, values.shape[0] - first)
        load_lanes(values, first, tile)
        _search_scale(tile, trials, scales)
        for lane in range(LANES):
            inverses[lane] = _ZERO if scales[lane] == _ZERO else _ONE / scales[lane]
        _encode_lanes(tile, inverses, lane_codes)
        for lane in range(0, lanes, 8):
            gather_codes(lane_codes, lane, codes)
            for index in range(min(8, lanes - lane)):
                block = out[first + lane + index]
                store_float16(block, 0, scales[lane + index])
                _pack(codes, 32 * index, block, 2)


@kernel
def _quantize_iq4_xs(values: Any, out: Any, trials: Any) -> None:
    scales = np.empty(LANES, np.float32)
    inverses = np.empty(LANES, np.float32)
    tile = np.empty((4, GROUP * LANES), np.float32)
    lane_codes = np.empty((4, GROUP * LANES), np.uint8)
    codes = np.empty(256, np.uint8)
    for first in range(0, values.shape[0], LANES):
        lanes = min(LANES, values.shape[0] - first)
        load_lanes(values, first, tile)
        _search_scale(tile, trials, scales)
        for lane in range(0, lanes, 8):
            _store_scales(scales, lane, inverses, out[(first + lane) // 8])
        _encode_lanes(tile, inverses, lane_codes)
        for lane in range(0, lanes, 8):
            block = out[(first + lane) // 8]
            gather_codes(lane_codes, lane, codes)
            for index in range(8):
                _pack(codes, 32 * index, block, 8 + 16 * index)


@inner_kernel
def _store_scales(scales: Any, lane: Any, inverses: Any, block: Any) -> None:
    """Write d and 8 scales of 6 bits, and give the inverses of the scales that these stand for.

    As in the reference, the inverses come from d before it is rounded to float16.
    """
    extreme = _ZERO
    for index in range(8):
        scale = scales[lane + index]
        extreme = scale if abs(scale) > abs(extreme) else extreme
    d = -extreme / np.float32(32.0)
    per_scale = _ZERO if d == _ZERO else _ONE / d
    store_float16(block, 0, d)
    block[2:8] = 0
    for index in range(8):
        code = nearest_int(per_scale * scales[lane + index])
        code = min(max(code, np.int32(-32)), np.int32(31))
        scale = d * np.float32(code)
        inverses[lane + index] = _ZERO if scale == _ZERO else _ONE / scale
        block[2 + index // 4] |= ((code + 32) >> 4) << (2 * (index % 4))
        block[4 + index // 2] |= ((code + 32) & 0xF) << (4 * (index % 2))


@inner_kernel
def _search_scale(tile: Any, trials: Any, scales: Any) -> None:
    """Try factors around (outermost value / largest weight) and keep the best scale."""
    state = np.zeros(FIELDS * LANES, np.float32)
    find_extreme(tile, state)
    for lane in range(LANES):
        state[FACTOR + lane] = _ONE / (-state[EXTREME + lane] / np.float32(-127.0))
    _round_and_sum(tile, state)
    for lane in range(LANES):
        l2 = state[SUM_L2 + lane]
        scale = state[SUM_LX + lane] / l2
        scale = scale if l2 > _ZERO else _ZERO
        state[SCALE + lane] = scale
        state[BEST + lane] = scale * state[SUM_LX + lane]
    for trial in trials:
        for lane in range(LANES):
            state[FACTOR + lane] = trial / state[EXTREME + lane]
        _round_and_sum(tile, state)
        keep_better(state)
    for lane in range(LANES):
        negligible = abs(state[EXTREME + lane]) < NEGLIGIBLE
        scales[lane] = _ZERO if negligible else state[SCALE + lane]


@inner_kernel
def _round_and_sum(tile: Any, state: Any) -> None:
    """Sums of w * q * x and w * q**2 for the nearest values q, with w = x**2."""
    for lane in range(LANES):
        state[SUM_LX + lane] = _ZERO
        state[SUM_L2 + lane] = _ZERO
    for group in range(tile.shape[0]):
        for element in range(GROUP):
            for lane in range(LANES):
                x = tile[group, element * LANES + lane]
                scaled = state[FACTOR + lane] * x
                q = np.float32(-127.0)
                for index in range(15):
                    q = q if scaled < _MIDPOINTS[index] else VALUES[index + 1]
                w = x * x
                state[SUM_LX + lane] += w * q * x
                state[SUM_L2 + lane] += w * q * q


@inner_kernel
def _encode_lanes(tile: Any, inverses: Any, codes: Any) -> None:
    for group in range(tile.shape[0]):
        for element in range(GROUP):
            for lane in range(LANES):
                scaled = inverses[lane] * tile[group, element * LANES + lane]
                code = np.int32(0)
                for step in range(15):
                    code = code if scaled < _MIDPOINTS[step] else np.int32(step + 1)
                codes[group, element * LANES + lane] = np.uint8(code)


@inner_kernel
def _pack(codes: Any, start: Any, block: Any, offset: Any) -> None:
    """Codes i and i + 16 share a byte."""
    for index in range(16):
        block[offset + index] = codes[start + index] | (codes[start + index + 16] << 4)


@kernel
def dequantize_iq4_nl(blocks: Any, out: Any) -> None:
    packed = blocks.reshape(-1, 18)
    decoded = out.reshape(-1, 32)
    for number in range(packed.shape[0]):
        block = packed[number]
        _decode(block[2:], load_float16(block, 0), decoded[number])


@kernel
def dequantize_iq4_xs(blocks: Any, out: Any) -> None:
    packed = blocks.reshape(-1, 136)
    decoded = out.reshape(-1, 256)
    for number in range(packed.shape[0]):
        block = packed[number]
        d = load_float16(block, 0)
        for index in range(8):
            high = (block[2 + index // 4] >> (2 * (index % 4))) & 3
            low = (block[4 + index // 2] >> (4 * (index % 2))) & 0xF
            scale = d * np.float32(np.int32(low | (high << 4)) - 32)
            _decode(block[8 + 16 * index :], scale, decoded[number, 32 * index :])


@inner_kernel
def _decode(codes: Any, scale: Any, target: Any) -> None:
    for index in range(16):
        target[index] = scale * VALUES[codes[index] & 0xF]
        target[index + 16] = scale * VALUES[codes[index] >> 4]
