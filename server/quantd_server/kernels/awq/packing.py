"""The ``gemm`` format of AWQ, on numpy arrays. Used by workers only (numba).

Both codes and zero points are packed along the output dimension, eight 4-bit fields a word, the
even columns of a run of eight below the odd ones. Zero points are stored as they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from quantd_server.kernels.compilation import kernel

BITS = 4
FIELDS = 8

# Field i, at bit 4 * i, holds column ORDER[i] of its run.
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


class PackedWeight(NamedTuple):
    """A linear with K inputs, N outputs and G groups, as checkpoints store it."""

    qweight: npt.NDArray[np.int32]  # [K, N / 8]
    qzeros: npt.NDArray[np.int32]  # [G, N / 8]
    scales: npt.NDArray[np.float16]  # [G, N]


class Codes(NamedTuple):
    """The same linear unpacked; group g has the columns g * K / G to (g + 1) * K / G."""

    codes: npt.NDArray[np.uint8]  # [N, K]
    scales: npt.NDArray[np.float32]  # [N, G]
    zeros: npt.NDArray[np.uint8]  # [N, G]


def pack(
    codes: npt.NDArray[np.uint8],
    scales: npt.NDArray[np.float32],
    zeros: npt.NDArray[np.uint8],
) -> PackedWeight:
    """Pack a quantized weight: codes [N, K] and zeros [N, G] below 16, scales [N, G] exactly
    float16 values. Fastest if ``codes.T`` is contiguous.

    Raises:
        ValueError: N is not a multiple of 8, or shapes do not fit.
    """
    rows, columns = codes.shape
    if rows % FIELDS:
        raise ValueError(f"a weight with {rows} rows cannot be packed: it takes a multiple of 8")
    if scales.shape != zeros.shape or scales.shape[0] != rows or columns % scales.shape[1]:
        raise ValueError(
            f"codes {codes.shape} do not fit scales {scales.shape} and zeros {zeros.shape}"
        )
    return PackedWeight(
        qweight=_packed(codes.T),
        qzeros=_packed(zeros.T),
        scales=np.ascontiguousarray(scales.T.astype(np.float16)),
    )


def unpack(packed: PackedWeight) -> Codes:
    """The codes that were packed; ``codes.T`` is contiguous."""
    return Codes(
        codes=_unpacked(packed.qweight).T,
        scales=packed.scales.T.astype(np.float32),
        zeros=_unpacked(packed.qzeros).T,
    )


def _packed(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    words = np.empty((codes.shape[0], codes.shape[1] // FIELDS), np.uint32)
    _pack(np.ascontiguousarray(codes), words)
    return words.view(np.int32)


def _unpacked(words: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    codes = np.empty((words.shape[0], words.shape[1] * FIELDS), np.uint8)
    _unpack(np.ascontiguousarray(words).view(np.uint32), codes)
    return codes


@kernel
def _pack(codes: Any, words: Any) -> None:
    for row in range(words.shape[0]):
        for word in range(words.shape[1]):
            bits = np.uint32(0)
            for field in range(FIELDS):
                code = np.uint32(codes[row, word * FIELDS + ORDER[field]])
                bits |= code << np.uint32(BITS * field)
            words[row, word] = bits


@kernel
def _unpack(words: Any, codes: Any) -> None:
    for row in range(words.shape[0]):
        for word in range(words.shape[1]):
            bits = words[row, word]
            for field in range(FIELDS):
                code = (bits >> np.uint32(BITS * field)) & np.uint32(15)
                codes[row, word * FIELDS + ORDER[field]] = np.uint8(code)
