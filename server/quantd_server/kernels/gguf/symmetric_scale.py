"""Two searches for the scale of a sub-block without minimum.

A weight is decoded as ``scale * code`` with codes -largest..largest - 1. The weight of an element
is its square. References: ``make_qx_quants`` and ``make_q3_quants`` of ggml-quants.c.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from quantd_server.kernels.compilation import inner_kernel
from quantd_server.kernels.gguf.lanes import GROUP, LANES, nearest_int

_ZERO = np.float32(0.0)
_MAX_PASSES = 5

NEGLIGIBLE = np.float32(1e-15)
"""Sub-blocks of smaller magnitude count as zero (``GROUP_MAX_EPS``)."""

# One number a lane each, ``state[FIELD + lane]``, as in :mod:`.scale_and_minimum`.
EXTREME = 0 * LANES  # the weight of largest magnitude
FACTOR = 1 * LANES  # codes are nearest_int(factor * x)
SUM_LX = 2 * LANES  # sum of w * x * code
SUM_L2 = 3 * LANES  # sum of w * code**2
SCALE = 4 * LANES  # the best fit so far
BEST = 5 * LANES  # what it takes off the weighted squared error
_BEST_FACTOR = 6 * LANES
_CHANGED = 7 * LANES
FIELDS = 8


@inner_kernel
def search_scale(tile: Any, largest_code: Any, trials: Any, scales: Any, codes: Any) -> None:
    """Try some scales near (largest weight / largest code) and keep the best.

    Args:
        tile: float32 [elements / GROUP, GROUP * LANES].
        largest_code: int32.
        trials: float32 [trials], what is divided by the weight of largest magnitude. The first
            one is the start.
        scales: out, float32 [LANES], zero for a lane that counts as zero.
        codes: out, float32 like ``tile``: codes plus ``largest_code``, or zero where the lane
            counts as zero.
    """
    state = np.empty(FIELDS * LANES, np.float32)
    find_extreme(tile, state)
    for number in range(trials.size):
        for lane in range(LANES):
            state[FACTOR + lane] = trials[number] / state[EXTREME + lane]
        _round_and_sum(tile, largest_code, state)
        if number == 0:
            for lane in range(LANES):
                l2 = state[SUM_L2 + lane]
                scale = _ZERO if l2 == _ZERO else state[SUM_LX + lane] / l2
                state[SCALE + lane] = scale
                state[BEST + lane] = scale * state[SUM_LX + lane]
                state[_BEST_FACTOR + lane] = state[FACTOR + lane]
        else:
            keep_better(state)
    for lane in range(LANES):
        negligible = abs(state[EXTREME + lane]) < NEGLIGIBLE
        scales[lane] = _ZERO if negligible else state[SCALE + lane]
        state[FACTOR + lane] = state[_BEST_FACTOR + lane]
    _round_shifted(tile, largest_code, codes, state)


@inner_kernel
def refine_scale(tile: Any, largest_code: Any, scales: Any, codes: Any) -> None:
    """Start from (largest weight / largest code), then improve one code at a time.

    Arguments as for :func:`search_scale`. A pass without a change ends the reference's search of
    a sub-block; here it leaves the lane as it is, and the passes end when no lane changes.
    """
    state = np.empty(FIELDS * LANES, np.float32)
    find_extreme(tile, state)
    for lane in range(LANES):
        state[FACTOR + lane] = np.float32(-largest_code) / state[EXTREME + lane]
    _round_and_sum(tile, largest_code, state)
    _round_shifted(tile, largest_code, codes, state)
    for _ in range(_MAX_PASSES):
        state[_CHANGED : _CHANGED + LANES] = _ZERO
        _refine_pass(tile, largest_code, codes, state)
        if not state[_CHANGED : _CHANGED + LANES].any():
            break
    for lane in range(LANES):
        l2 = state[SUM_L2 + lane]
        fits = (abs(state[EXTREME + lane]) >= NEGLIGIBLE) & (l2 > _ZERO)
        scale = state[SUM_LX + lane] / l2
        scales[lane] = scale if fits else _ZERO


@inner_kernel
def find_extreme(tile: Any, state: Any) -> None:
    """The first element of largest magnitude in each lane, with its sign."""
    for lane in range(LANES):
        state[EXTREME + lane] = _ZERO
    for group in range(tile.shape[0]):
        for lane in range(LANES):
            found = state[EXTREME + lane]
            for element in range(GROUP):
                x = tile[group, element * LANES + lane]
                found = x if abs(x) > abs(found) else found
            state[EXTREME + lane] = found


@inner_kernel
def keep_better(state: Any) -> None:
    """Take over the trial's scale where it lessens the error."""
    for lane in range(LANES):
        lx = state[SUM_LX + lane]
        l2 = state[SUM_L2 + lane]
        best = state[BEST + lane]
        better = (l2 > _ZERO) & (lx * lx > best * l2)
        scale = lx / l2
        gain = scale * lx
        state[SCALE + lane] = scale if better else state[SCALE + lane]
        state[BEST + lane] = gain if better else best
        state[_BEST_FACTOR + lane] = state[FACTOR + lane] if better else state[_BEST_FACTOR + lane]


@inner_kernel
def _round_and_sum(tile: Any, largest_code: Any, state: Any) -> None:
    low = np.int32(-largest_code)
    high = np.int32(largest_code - 1)
    for lane in range(LANES):
        state[SUM_LX + lane] = _ZERO
        state[SUM_L2 + lane] = _ZERO
    for group in range(tile.shape[0]):
        for lane in range(LANES):
            factor = state[FACTOR + lane]
            lx = state[SUM_LX + lane]
            l2 = state[SUM_L2 + lane]
            for element in range(GROUP):
                x = tile[group, element * LANES + lane]
                code = np.float32(min(max(nearest_int(factor * x), low), high))
                w = x * x
                lx += w * x * code
                l2 += w * code * code
            state[SUM_LX + lane] = lx
            state[SUM_L2 + lane] = l2


@inner_kernel
def _round_shifted(tile: Any, largest_code: Any, codes: Any, state: Any) -> None:
    """Codes plus ``largest_code``; zero in lanes that count as zero, as the reference has it."""
    low = np.int32(-largest_code)
    high = np.int32(largest_code - 1)
    for group in range(tile.shape[0]):
        for lane in range(LANES):
            negligible = abs(state[EXTREME + lane]) < NEGLIGIBLE
            factor = state[FACTOR + lane]
            for element in range(GROUP):
                x = tile[group, element * LANES + lane]
                code = np.float32(min(max(nearest_int(factor * x), low), high) + largest_code)
                codes[group, element * LANES + lane] = _ZERO if negligible else code


@inner_kernel
def _refine_pass(tile: Any, largest_code: Any, codes: Any, state: Any) -> None:
    """Change one element's code after the other where that lessens the error."""
    low = np.int32(-largest_code)
    high = np.int32(largest_code - 1)
    shift = np.float32(largest_code)
    for group in range(tile.shape[0]):
        for element in range(GROUP):
            for lane in range(LANES):
                x = tile[group, element * LANES + lane]
                old = codes[group, element * LANES + lane] - shift
                total_lx = state[SUM_LX + lane]
                total_l2 = state[SUM_L2 + lane]
                w = x * x
                lx = total_lx - w * x * old
                l2 = total_l2 - w * old * old
                new = np.float32(min(max(nearest_int(x * l2 / lx), low), high))
                new_lx = lx + w * x * new
                new_l2 = l2 + w * new * new
                better = (
                    (abs(state[EXTREME + lane]) >= NEGLIGIBLE)
                    & (lx > _ZERO)
                    & (new != old)
                    & (new_l2 > _ZERO)
                    & (new_lx * new_lx * total_l2 > total_lx * total_lx * new_l2)
                )
                codes[group, element * LANES + lane] = (new if better else old) + shift
                state[SUM_LX + lane] = new_lx if better else total_lx
                state[SUM_L2 + lane] = new_l2 if better else total_l2
                state[_CHANGED + lane] = np.float32(1.0) if better else state[_CHANGED + lane]
