"""Block shape of every ggml type that quantd writes.

Planning sizes outputs from this table, so it imports neither numpy nor numba.
Source: ``GGML_QUANT_SIZES`` of gguf-py and the ``block_*`` structs of ggml-common.h.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class BlockShape(NamedTuple):
    """How many weights one block holds, and in how many bytes it stores them."""

    elements: int
    bytes: int

    @property
    def bits_per_weight(self) -> float:
        """Storage cost, scales included, in bits."""
        return 8 * self.bytes / self.elements

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row of ``columns`` weights; ``columns`` is a multiple of ``elements``."""
        return columns // self.elements * self.bytes


TYPES: Mapping[str, BlockShape] = MappingProxyType(
    {
        "F32": BlockShape(1, 4),
        "F16": BlockShape(1, 2),
        "BF16": BlockShape(1, 2),
        "Q8_0": BlockShape(32, 34),
        "Q4_0": BlockShape(32, 18),
        "Q4_1": BlockShape(32, 20),
        "Q5_0": BlockShape(32, 22),
        "Q5_1": BlockShape(32, 24),
        "Q2_K": BlockShape(256, 84),
        "Q3_K": BlockShape(256, 110),
        "Q4_K": BlockShape(256, 144),
        "Q5_K": BlockShape(256, 176),
        "Q6_K": BlockShape(256, 210),
        "IQ4_NL": BlockShape(32, 18),
        "IQ4_XS": BlockShape(256, 136),
        "IQ3_S": BlockShape(256, 110),
        "TQ1_0": BlockShape(256, 54),
        "TQ2_0": BlockShape(256, 66),
        "MXFP4": BlockShape(32, 17),
    }
)
