"""Many sub-blocks side by side: the layout that makes the searches fast.

The reference searches read one sub-block at a time and add up its elements one after the other.
Such a sum must not be reordered if the result is to be the same to the last bit, so it cannot use
vector registers. Here one lane is one sub-block: a tile holds element 0 of 64 sub-blocks, then
element 1 of all of them, and so on. Every lane does the reference's operations in the reference's
order, and the inner loops run over lanes, 8 or 16 of them in one instruction.

Elements come in groups of eight, a loop that the compiler unrolls, so that running sums stay in
registers within a group: a tile is [elements / GROUP, GROUP * LANES].
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from quantd_server.kernels.compilation import inner_kernel

LANES = 64
GROUP = 8

_SHIFT = np.float32(12582912.0)  # 1.5 * 2**23: adding it leaves a rounded integer in the mantissa
_MANTISSA = np.int32(0x007FFFFF)
_OFFSET = np.int32(0x00400000)


@inner_kernel
def nearest_int(value: Any) -> Any:
    """Round half to even to int32, as ``nearest_int`` of ggml-quants.c.

    Magnitudes above 2**22, infinity and NaN give the (meaningless) integer that ggml computes.
    """
    return np.int32((np.float32(value + _SHIFT).view(np.int32) & _MANTISSA) - _OFFSET)


@inner_kernel
def load_lanes(blocks: npt.NDArray[np.float32], first: int, tile: npt.NDArray[np.float32]) -> None:
    """Transpose sub-blocks ``first``.. of ``blocks`` [count, elements] into ``tile``.

    Lanes beyond the last sub-block repeat it; nobody reads their results.
    """
    last = blocks.shape[0] - 1
    for lane in range(LANES):
        row = min(first + lane, last)
        for group in range(tile.shape[0]):
            for element in range(GROUP):
                tile[group, element * LANES + lane] = blocks[row, group * GROUP + element]


@inner_kernel
def encode_lanes(
    tile: Any, scales: Any, minima: Any, low: Any, high: Any, fit_codes: Any, codes: Any
) -> None:
    """Final codes for scales and minima that have been rounded to what the block stores.

    Args:
        tile: float32 weights.
        scales, minima: float32 [LANES]; a weight is about ``scale * code - minimum``.
        low, high: int32, the allowed codes.
        fit_codes: float32 like ``tile``; where a scale was rounded to zero the reference keeps
            these codes of its search.
        codes: out, uint8 like ``tile``, codes minus ``low``.
    """
    for group in range(tile.shape[0]):
        for element in range(GROUP):
            for lane in range(LANES):
                index = element * LANES + lane
                scale = scales[lane]
                code = nearest_int((tile[group, index] + minima[lane]) / scale)
                code = np.int32(min(max(code, low), high) - low)
                fit_code = np.int32(fit_codes[group, index])
                codes[group, index] = np.uint8(fit_code if scale == np.float32(0.0) else code)


@inner_kernel
def gather_codes(lane_codes: Any, lane: Any, codes: Any) -> None:
    """The codes of one super-block, whose sub-blocks are ``lane``.., as uint8 [256]."""
    elements = lane_codes.shape[0] * GROUP
    for sub_block in range(256 // elements):
        for group in range(lane_codes.shape[0]):
            for element in range(GROUP):
                position = sub_block * elements + group * GROUP + element
                codes[position] = lane_codes[group, element * LANES + lane + sub_block]
