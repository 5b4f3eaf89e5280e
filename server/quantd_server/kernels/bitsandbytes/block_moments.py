"""What of a 4-bit weight has to be remembered to tell its error under scales known only later.

Double quantization changes the scales after all blocks are coded. With c a code's value and a the
scale of a block, the squared error is sum w^2 - 2 a sum w c + a^2 sum c^2: two sums a block are
enough, and the weight need not be seen again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from quantd_server.kernels.bitsandbytes.tables import QuantType, code_table
from quantd_server.kernels.compilation import kernel


@kernel
def _moments(
    values: Any, codes: Any, table: Any, blocksize: int, out_cross: Any, out_square: Any
) -> None:
    for block in range(out_cross.size):
        begin = block * blocksize
        end = min(begin + blocksize, values.size)
        cross = 0.0
        square = 0.0
        for i in range(begin, end):
            packed = np.int64(codes[i >> 1])
            value = table[(packed >> (4 * (1 - (i & 1)))) & 15]
            cross += np.float64(values[i]) * value
            square += value * value
        out_cross[block] = cross
        out_square[block] = square


def block_moments(
    values: npt.NDArray[np.float32],
    codes: npt.NDArray[np.uint8],
    quant_type: QuantType,
    blocksize: int,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(sum w c, sum c^2) of each block: float64[ceil(n/blocksize)] each.

    values: float32[n]; codes: uint8[ceil(n/2)] as ``quantize_4bit`` makes them, first in the high
    nibble.
    """
    blocks = -(-values.size // blocksize)
    cross, square = np.empty(blocks), np.empty(blocks)
    table = np.array(code_table(quant_type), np.float64)
    _moments(values, codes, table, blocksize, cross, square)
    return cross, square
