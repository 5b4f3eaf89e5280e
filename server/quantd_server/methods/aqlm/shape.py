"""The shape of AQLM's codes, and what it costs."""

from __future__ import annotations

import msgspec

from quantd_server.methods.configs import AqlmConfig

FLOAT16_BITS = 16
"""Of codebooks and scales."""

TABLE_BYTES = 64 << 20
"""Most that the solver takes for one table of distances or errors; see ``kernels.aqlm``."""

_FLOAT32 = 4


class CodeShape(msgspec.Struct, frozen=True, kw_only=True):
    """How many weights a code stands for, and how many codebooks are added."""

    codebooks: int
    bits: int
    """Of an index into one codebook."""
    in_group: int
    out_group: int

    @classmethod
    def of(cls, config: AqlmConfig) -> CodeShape:
        """That of a resolved configuration."""
        return cls(
            codebooks=config.num_codebooks or 1,
            bits=config.nbits_per_codebook or 16,
            in_group=config.in_group_size or 8,
            out_group=config.out_group_size or 1,
        )

    @property
    def name(self) -> str:
        """Codebooks and bits, as the names of published checkpoints have it: "1x16"."""
        return f"{self.codebooks}x{self.bits}"

    @property
    def code_dtype(self) -> str:
        """Smallest signed type that holds an index; indices above its range wrap around."""
        return "I8" if self.bits <= 8 else "I16"

    def divides(self, rows: int, columns: int) -> bool:
        """Whether a weight [rows, columns] falls into whole groups."""
        return columns % self.in_group == 0 and rows % self.out_group == 0

    def groups(self, rows: int, columns: int) -> int:
        """Groups of a weight, each with a code from each codebook."""
        return (rows // self.out_group) * (columns // self.in_group)

    def stored_bits(self, rows: int, columns: int) -> int:
        """Bits of information for a weight: codes of ``bits``, codebooks and scales (the files
        store codes in 8 or 16 bits).
        """
        codes = self.groups(rows, columns) * self.codebooks * self.bits
        vectors = self.codebooks * 2**self.bits * self.in_group * self.out_group
        return codes + FLOAT16_BITS * (vectors + rows // self.out_group)

    def tuning_bytes(self, rows: int, columns: int) -> int:
        """Memory that tuning takes for a weight: it and its gradient, the code, and of codebooks
        and scales the best, the written and the tuned ones with gradient and two moments.
        """
        vectors = self.codebooks * 2**self.bits * self.in_group * self.out_group
        codes = self.groups(rows, columns) * self.codebooks
        return _FLOAT32 * (2 * rows * columns + codes + 6 * (vectors + rows // self.out_group))

    def solving_bytes(self, rows: int, columns: int, beam_size: int) -> int:
        """Memory that solving a weight takes besides copies of the weight and of the second
        moment: the code, and the tables of k-means or of the search.
        """
        size = 2**self.bits
        groups = self.groups(rows, columns)
        row_table = _FLOAT32 * size * (rows // self.out_group)
        distances = 2 * min(TABLE_BYTES, _FLOAT32 * size * groups)
        errors = (
            self.codebooks * min(TABLE_BYTES, row_table)
            + 3 * min(TABLE_BYTES, row_table * beam_size)
            + self.codebooks * (self.codebooks - 1) // 2 * _FLOAT32 * size**2
        )
        codes = 2 * _FLOAT32 * groups * self.codebooks
        vectors = _FLOAT32 * self.codebooks * size * self.in_group * self.out_group
        return codes + 6 * vectors + max(distances, errors)
