"""Scales fitted again once the codes are known, on torch tensors. Used by workers only.

With codes C = code - zero fixed, the output error tr(D G Dᵀ), D = W - C s, is quadratic in each
scale. Group after group is set to its minimum, given the others (a Gauss-Seidel sweep); a scale
that is not better, or that a float16 cannot hold, stays.
"""

from __future__ import annotations

import torch

from quantd_server.kernels.uniform_grid import LARGEST_SCALE, SMALLEST_SCALE

SWEEPS = 2


def refit_scales(
    weight: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor,
    g_idx: torch.Tensor,
    gram: torch.Tensor,
    *,
    damp_percent: float = 0.01,
) -> torch.Tensor:
    """Scales with which the same codes lose less of the output: float32 [rows, groups].

    Args:
        weight: float32 [rows, columns].
        codes: uint8 [rows, columns].
        scales: float32 [rows, groups], each exactly a float16, as the result's are.
        zeros: uint8 [rows, groups].
        g_idx: int32 [columns], the group of each column.
        gram: float32 [columns, columns]. Not changed.
        damp_percent: part of the mean diagonal that counts as added to it, so that directions
            without data don't let scales run away.
    """
    index = g_idx.long()
    steps = codes.T.to(torch.float32)
    steps -= zeros.T.to(torch.float32)[index]
    scales = scales.T.clone()
    residual = weight.T - steps * scales[index]
    damp = damp_percent * float(gram.diagonal().mean(dtype=torch.float64))
    columns_of = [(index == group).nonzero().flatten() for group in range(scales.shape[0])]
    for _ in range(SWEEPS):
        for group, columns in enumerate(columns_of):
            own = steps[columns]
            rows_of_gram = gram[columns]
            slope = (rows_of_gram @ residual).add_(residual[columns], alpha=damp)
            slope.mul_(own)
            curvature = (rows_of_gram[:, columns] @ own).add_(own, alpha=damp).mul_(own)
            change = slope.sum(dim=0) / curvature.sum(dim=0)
            wanted = (scales[group] + change).to(torch.float16).to(torch.float32)
            usable = (wanted >= SMALLEST_SCALE) & (wanted <= LARGEST_SCALE)
            wanted = torch.where(usable, wanted, scales[group])
            residual[columns] -= own * (wanted - scales[group])
            scales[group] = wanted
    return scales.T
