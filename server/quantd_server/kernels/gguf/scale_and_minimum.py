"""The search for a sub-block's scale and minimum (``make_qkx2_quants`` of ggml-quants.c).

A weight is decoded as ``scale * code + minimum``, with codes 0..largest_code. For a number of
trial scales the codes are fixed by rounding, then scale and minimum follow by weighted least
squares; the trial with the least error wins.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from quantd_server.kernels.compilation import inner_kernel
from quantd_server.kernels.gguf.lanes import GROUP, LANES, nearest_int

_ZERO = np.float32(0.0)
_MINUS_ZERO = np.float32(-0.0)  # adding to it changes nothing, not even the sign of a zero

# Everything that is one number a lane lives in one array, ``state[FIELD + lane]``: with a single
# base and constant distances the compiler knows that no two fields overlap, and vectorizes.
_LARGEST = 0 * LANES
_SUM_W = 1 * LANES
_SUM_X = 2 * LANES
_FACTOR = 3 * LANES  # codes of the trial are nearest_int(factor * (x - minimum))
_TRIAL_SCALE = 4 * LANES
_TRIAL_MINIMUM = 5 * LANES
_TRIAL_ERROR = 6 * LANES
_DETERMINANT = 7 * LANES
_SCALE = 8 * LANES  # the best fit so far, and what its codes were rounded with
_MINIMUM = 9 * LANES
_ERROR = 10 * LANES
_BEST_FACTOR = 11 * LANES
_BEST_ORIGIN = 12 * LANES
_SUM_L = 13 * LANES
_SUM_L2 = 14 * LANES
_SUM_XL = 15 * LANES
_FIELDS = 16


@inner_kernel
def search_scale_and_minimum(
    tile: Any,
    weights: Any,
    largest_code: Any,
    trials: Any,
    use_absolute_error: Any,
    scales: Any,
    minima: Any,
    codes: Any,
) -> None:
    """Fit all lanes.

    Args:
        tile, weights: float32 [elements / GROUP, GROUP * LANES].
        largest_code: int32.
        trials: float32 [trials], what ``(largest - smallest weight)`` is divided into.
        use_absolute_error: weigh |difference| instead of its square.
        scales, minima: out, float32 [LANES], the best fit; the minimum is not above zero.
        codes: out, float32 like ``tile``, the codes of the best fit.
    """
    state = np.empty(_FIELDS * LANES, np.float32)
    _find_range_and_sums(tile, weights, state)
    for lane in range(LANES):
        span = state[_LARGEST + lane] - state[_MINIMUM + lane]
        state[_FACTOR + lane] = np.float32(largest_code) / span
    _round_and_fit(tile, weights, largest_code, codes, state)
    for lane in range(LANES):  # the start is not the fit: it spans the range
        state[_TRIAL_SCALE + lane] = np.float32(1.0) / state[_FACTOR + lane]
        state[_TRIAL_MINIMUM + lane] = state[_MINIMUM + lane]
    _measure_error(tile, weights, codes, use_absolute_error, state)
    for lane in range(LANES):
        flat = state[_LARGEST + lane] == state[_MINIMUM + lane]
        state[_SCALE + lane] = _ZERO if flat else state[_TRIAL_SCALE + lane]
        state[_BEST_FACTOR + lane] = _ZERO if flat else state[_FACTOR + lane]
        state[_BEST_ORIGIN + lane] = state[_MINIMUM + lane]
        # No trial is better than minus infinity: flat sub-blocks stay as they are.
        state[_ERROR + lane] = np.float32(-np.inf) if flat else state[_TRIAL_ERROR + lane]

    for trial in trials:
        for lane in range(LANES):
            state[_FACTOR + lane] = trial / (state[_LARGEST + lane] - state[_MINIMUM + lane])
        _round_and_fit(tile, weights, largest_code, codes, state)
        _measure_error(tile, weights, codes, use_absolute_error, state)
        _keep_better(state)

    for lane in range(LANES):
        scales[lane] = state[_SCALE + lane]
        minima[lane] = state[_MINIMUM + lane]
    _round_best(tile, largest_code, codes, state)


@inner_kernel
def _find_range_and_sums(tile: Any, weights: Any, state: Any) -> None:
    """Smallest weight (at most zero), largest weight, and the sums of w and w * x."""
    for lane in range(LANES):
        state[_MINIMUM + lane] = tile[0, lane]
        state[_LARGEST + lane] = tile[0, lane]
        state[_SUM_W + lane] = _MINUS_ZERO
        state[_SUM_X + lane] = _MINUS_ZERO
    for group in range(tile.shape[0]):
        for lane in range(LANES):
            low = state[_MINIMUM + lane]
            high = state[_LARGEST + lane]
            w_total = state[_SUM_W + lane]
            x_total = state[_SUM_X + lane]
            for element in range(GROUP):
                x = tile[group, element * LANES + lane]
                w = weights[group, element * LANES + lane]
                low = x if x < low else low
                high = x if x > high else high
                w_total += w
                x_total += w * x
            state[_MINIMUM + lane] = low
            state[_LARGEST + lane] = high
            state[_SUM_W + lane] = w_total
            state[_SUM_X + lane] = x_total
    for lane in range(LANES):
        low = state[_MINIMUM + lane]
        state[_MINIMUM + lane] = _ZERO if low > _ZERO else low


@inner_kernel
def _round_and_fit(tile: Any, weights: Any, largest_code: Any, codes: Any, state: Any) -> None:
    """Round to codes, then find the least-squares scale and minimum for them."""
    for lane in range(LANES):
        state[_SUM_L + lane] = _ZERO
        state[_SUM_L2 + lane] = _ZERO
        state[_SUM_XL + lane] = _ZERO
    for group in range(tile.shape[0]):
        for lane in range(LANES):
            factor = state[_FACTOR + lane]
            origin = state[_MINIMUM + lane]
            sum_l = state[_SUM_L + lane]
            sum_l2 = state[_SUM_L2 + lane]
            sum_xl = state[_SUM_XL + lane]
            for element in range(GROUP):
                x = tile[group, element * LANES + lane]
                rounded = nearest_int(factor * (x - origin))
                code = np.float32(min(max(rounded, np.int32(0)), largest_code))
                codes[group, element * LANES + lane] = code
                weighted = weights[group, element * LANES + lane] * code
                sum_l += weighted
                sum_l2 += weighted * code
                sum_xl += weighted * x
            state[_SUM_L + lane] = sum_l
            state[_SUM_L2 + lane] = sum_l2
            state[_SUM_XL + lane] = sum_xl
    for lane in range(LANES):
        sum_w = state[_SUM_W + lane]
        sum_x = state[_SUM_X + lane]
        sum_l = state[_SUM_L + lane]
        sum_l2 = state[_SUM_L2 + lane]
        sum_xl = state[_SUM_XL + lane]
        determinant = sum_w * sum_l2 - sum_l * sum_l
        scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
        minimum = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        clipped_scale = sum_xl / sum_l2
        clipped = minimum > _ZERO
        state[_DETERMINANT + lane] = determinant
        state[_TRIAL_SCALE + lane] = clipped_scale if clipped else scale
        state[_TRIAL_MINIMUM + lane] = _ZERO if clipped else minimum


@inner_kernel
def _measure_error(
    tile: Any, weights: Any, codes: Any, use_absolute_error: Any, state: Any
) -> None:
    for lane in range(LANES):
        state[_TRIAL_ERROR + lane] = _ZERO
    for group in range(tile.shape[0]):
        for lane in range(LANES):
            total = state[_TRIAL_ERROR + lane]
            scale = state[_TRIAL_SCALE + lane]
            minimum = state[_TRIAL_MINIMUM + lane]
            for element in range(GROUP):
                index = element * LANES + lane
                difference = scale * codes[group, index] + minimum - tile[group, index]
                if use_absolute_error:
                    total += weights[group, index] * abs(difference)
                else:
                    total += weights[group, index] * (difference * difference)
            state[_TRIAL_ERROR + lane] = total


@inner_kernel
def _keep_better(state: Any) -> None:
    for lane in range(LANES):
        error = state[_TRIAL_ERROR + lane]
        best = state[_ERROR + lane]
        origin = state[_MINIMUM + lane]
        better = (state[_DETERMINANT + lane] > _ZERO) & (error < best)
        state[_ERROR + lane] = error if better else best
        state[_SCALE + lane] = state[_TRIAL_SCALE + lane] if better else state[_SCALE + lane]
        state[_BEST_FACTOR + lane] = state[_FACTOR + lane] if better else state[_BEST_FACTOR + lane]
        state[_BEST_ORIGIN + lane] = origin if better else state[_BEST_ORIGIN + lane]
        # As in the reference, the next trial starts from the new minimum.
        state[_MINIMUM + lane] = state[_TRIAL_MINIMUM + lane] if better else origin


@inner_kernel
def _round_best(tile: Any, largest_code: Any, codes: Any, state: Any) -> None:
    for group in range(tile.shape[0]):
        for lane in range(LANES):
            factor = state[_BEST_FACTOR + lane]
            origin = state[_BEST_ORIGIN + lane]
            for element in range(GROUP):
                x = tile[group, element * LANES + lane]
                code = min(max(nearest_int(factor * (x - origin)), np.int32(0)), largest_code)
                codes[group, element * LANES + lane] = np.float32(code)
