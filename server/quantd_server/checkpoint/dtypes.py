"""safetensors dtype names and their sizes.

Names and widths are those of the safetensors library's ``Dtype`` enum
(https://github.com/huggingface/safetensors, safetensors/src/tensor.rs).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

DTYPE_BITS: dict[str, int] = {
    "F64": 64,
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "I64": 64,
    "I32": 32,
    "I16": 16,
    "I8": 8,
    "U64": 64,
    "U32": 32,
    "U16": 16,
    "U8": 8,
    "BOOL": 8,
    "C64": 64,
    "F8_E4M3": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E8M0": 8,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F4": 4,
}
"""Width of one element in bits; F4 and F6 are packed."""


def element_size(dtype: str) -> int:
    """Bytes of one element. Raises ValueError for an unknown or a packed (sub-byte) dtype."""
    bits = DTYPE_BITS.get(dtype)
    if bits is None or bits % 8:
        whole = ", ".join(name for name, width in DTYPE_BITS.items() if width % 8 == 0)
        raise ValueError(f"dtype {dtype!r} has no whole-byte element; those that have: {whole}")
    return bits // 8


def tensor_nbytes(dtype: str, shape: Sequence[int]) -> int:
    """Bytes of a contiguous tensor.

    Raises ValueError for an unknown dtype or a packed one that does not fill its last byte.
    """
    bits = DTYPE_BITS.get(dtype)
    if bits is None:
        raise ValueError(f"unknown dtype {dtype!r}; known: {', '.join(DTYPE_BITS)}")
    total = math.prod(shape) * bits
    if total % 8:
        raise ValueError(f"{dtype} tensor of shape {list(shape)} does not fill whole bytes")
    return total // 8
