"""A weight as sums of vectors from codebooks, on torch tensors. Used by workers only."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(kw_only=True, slots=True)
class AdditiveCode:
    """``weight[o, g] ≈ scales[o] * Σ_m codebooks[m, codes[o, g, m]]``, group by group."""

    codes: torch.Tensor
    """int32 [out groups, in groups, codebooks]."""
    codebooks: torch.Tensor
    """float32 [codebooks, vectors, out group size, in group size]."""
    scales: torch.Tensor
    """float32 [out groups]."""

    @property
    def in_group(self) -> int:
        """Columns of a group."""
        return self.codebooks.shape[3]

    def decode(self) -> torch.Tensor:
        """The weight, float32 [rows, columns]; a new tensor."""
        return self.spread(self.codebooks)

    def decode_group(self, group: int) -> torch.Tensor:
        """Its columns of one input group, float32 [rows, in group size]."""
        codes = self.codes[:, group].long()
        vectors = self.codebooks[0, codes[:, 0]]
        for number in range(1, codes.shape[1]):
            vectors = vectors + self.codebooks[number, codes[:, number]]
        return (vectors * self.scales[:, None, None]).flatten(0, 1)

    def spread(self, codebooks: torch.Tensor) -> torch.Tensor:
        """The weight with other codebooks of the same shape; linear in them."""
        total = torch.nn.functional.embedding(self.codes[..., 0], codebooks[0].flatten(1))
        for number in range(1, self.codes.shape[2]):
            total += torch.nn.functional.embedding(
                self.codes[..., number], codebooks[number].flatten(1)
            )
        total *= self.scales[:, None, None]
        groups = total.unflatten(2, tuple(codebooks.shape[2:]))  # [o, g, out size, in size]
        return groups.transpose(1, 2).flatten(2).flatten(0, 1)

    def gathered(self, values: torch.Tensor) -> torch.Tensor:
        """The adjoint of ``spread``: values [rows, columns] summed up over equal codes."""
        _, size, tall, wide = self.codebooks.shape
        groups = self.grouped(values) * self.scales[:, None, None]
        flat = groups.flatten(0, 1)
        sums = [
            flat.new_zeros(size, tall * wide).index_add_(0, codes, flat)
            for codes in self.codes.flatten(0, 1).unbind(1)
        ]
        return torch.stack(sums).unflatten(2, (tall, wide))

    def grouped(self, values: torch.Tensor) -> torch.Tensor:
        """[rows, columns] as [out groups, in groups, vector]."""
        _, _, tall, wide = self.codebooks.shape
        groups = values.unflatten(0, (-1, tall)).unflatten(2, (-1, wide))
        return groups.transpose(1, 2).flatten(2)
