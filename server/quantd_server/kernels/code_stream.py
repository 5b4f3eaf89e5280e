"""Codes of 2 to 8 bits as a stream of 32-bit words, on numpy arrays. Used by workers only (numba).

32 codes fill as many words as a code has bits, the first code in the lowest bits of the first
word; with 3 bits, codes 10 and 21 lie in two words each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from quantd_server.kernels.compilation import kernel

CODES = 32  # codes of a run of words
WORD_BITS = 32

# Columns packed at once: their words stay in the first-level cache.
_TILE = 512


def pack_rows(codes: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.int32]:
    """Pack runs of 32 rows: codes [rows, columns] to words [rows * bits / 32, columns].

    Raises:
        ValueError: The rows are not a multiple of 32.
    """
    if codes.ndim != 2 or codes.shape[0] % CODES:
        raise ValueError(f"packing needs [rows, columns], rows a multiple of 32; got {codes.shape}")
    words = np.zeros((codes.shape[0] * bits // WORD_BITS, codes.shape[1]), np.uint32)
    _pack_rows(np.ascontiguousarray(codes), bits, words)
    return words.view(np.int32)


def unpack_rows(words: npt.NDArray[np.int32], bits: int) -> npt.NDArray[np.uint8]:
    """The codes [rows, columns] that :func:`pack_rows` packed.

    Raises:
        ValueError: The rows of words are not a multiple of the bits.
    """
    if words.ndim != 2 or words.shape[0] % bits:
        raise ValueError(f"{bits}-bit codes come in multiples of {bits} words; got {words.shape}")
    codes = np.empty((words.shape[0] * WORD_BITS // bits, words.shape[1]), np.uint8)
    _unpack_rows(np.ascontiguousarray(words).view(np.uint32), bits, codes)
    return codes


@kernel
def _pack_rows(codes: Any, bits: int, words: Any) -> None:
    columns = codes.shape[1]
    for run in range(codes.shape[0] // CODES):
        for left in range(0, columns, _TILE):
            right = min(left + _TILE, columns)
            for index in range(CODES):
                row = run * CODES + index
                word = run * bits + index * bits // WORD_BITS
                shift = np.uint32(index * bits % WORD_BITS)
                for column in range(left, right):
                    words[word, column] |= np.uint32(codes[row, column]) << shift
                if shift + bits > WORD_BITS:
                    rest = np.uint32(WORD_BITS - shift)
                    for column in range(left, right):
                        words[word + 1, column] |= np.uint32(codes[row, column]) >> rest


@kernel
def _unpack_rows(words: Any, bits: int, codes: Any) -> None:
    columns = codes.shape[1]
    mask = np.uint32((1 << bits) - 1)
    for run in range(codes.shape[0] // CODES):
        for left in range(0, columns, _TILE):
            right = min(left + _TILE, columns)
            for index in range(CODES):
                row = run * CODES + index
                word = run * bits + index * bits // WORD_BITS
                shift = np.uint32(index * bits % WORD_BITS)
                if shift + bits > WORD_BITS:
                    rest = np.uint32(WORD_BITS - shift)
                    for column in range(left, right):
                        code = (words[word, column] >> shift) | (words[word + 1, column] << rest)
                        codes[row, column] = np.uint8(code & mask)
                else:
                    for column in range(left, right):
                        codes[row, column] = np.uint8((words[word, column] >> shift) & mask)
