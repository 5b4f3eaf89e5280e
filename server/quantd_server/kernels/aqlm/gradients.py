"""How an error that depends on a weight depends on its code, on torch tensors. Workers only."""

from __future__ import annotations

import torch

from quantd_server.kernels.aqlm.additive_code import AdditiveCode


def code_gradients(code: AdditiveCode, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of codebooks and scales, in their shapes.

    ``gradient``: of the weight float32 [rows, columns] that the code stands for.
    """
    unscaled = AdditiveCode(
        codes=code.codes, codebooks=code.codebooks, scales=torch.ones_like(code.scales)
    ).decode()
    products = unscaled.mul_(gradient).unflatten(0, (len(code.scales), -1))
    return code.gathered(gradient), products.flatten(1).sum(dim=1)
