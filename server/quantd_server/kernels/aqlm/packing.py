"""Codes as AQLM checkpoints store them. Used by workers only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_UNSIGNED = {8: np.uint8, 16: np.uint16}


def pack_codes(codes: npt.NDArray[np.int32], bits: int) -> npt.NDArray[np.generic]:
    """int8 (up to 8 bits) or int16: those that do not fit wrap around to negative numbers."""
    width = 8 if bits <= 8 else 16
    signed = np.int8 if width == 8 else np.int16
    return np.ascontiguousarray(codes.astype(_UNSIGNED[width])).view(signed)


def unpack_codes(stored: npt.NDArray[np.generic]) -> npt.NDArray[np.int32]:
    """The inverse of ``pack_codes``."""
    return stored.view(_UNSIGNED[8 * stored.dtype.itemsize]).astype(np.int32)
