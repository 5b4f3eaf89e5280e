"""Sum of squared differences in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quantd_server.kernels.compilation import kernel

_LANES = 16


@kernel
def add_squared_differences(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> float:
    """Sum of ``(left - right) ** 2`` over two 1-D arrays of one length, all in float64.

    Sixteen interleaved partial sums let the compiler use vector registers; their order is fixed,
    so that the result does not depend on the machine.
    """
    partial = np.zeros(_LANES, np.float64)
    whole = left.size // _LANES * _LANES
    for start in range(0, whole, _LANES):
        for lane in range(_LANES):
            difference = np.float64(left[start + lane]) - np.float64(right[start + lane])
            partial[lane] += difference * difference
    total = 0.0
    for lane in range(_LANES):
        total += partial[lane]
    for index in range(whole, left.size):
        difference = np.float64(left[index]) - np.float64(right[index])
        total += difference * difference
    return total
