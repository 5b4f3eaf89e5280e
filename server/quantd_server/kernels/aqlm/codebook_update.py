"""Codebooks and scales that fit given codes best, on torch tensors. Used by workers only.

Given the codes, the weight is linear in the codebooks, so their output error is a quadratic
function. Its minimum is found by conjugate gradients, preconditioned with the block that each
vector has on its own; one step costs a product with the second moment, as a step of gradient
descent does. Scales have a closed form.
"""

from __future__ import annotations

import torch

from quantd_server.kernels.aqlm.additive_code import AdditiveCode

_RIDGE = 1e-6
"""Added to the diagonal of a vector's block, as a fraction of the blocks' mean diagonal."""


def update_codebooks(
    weight: torch.Tensor, gram: torch.Tensor, code: AdditiveCode, *, steps: int, tolerance: float
) -> None:
    """Changes ``code.codebooks`` so that the output error becomes smaller.

    Args:
        weight: float32 [rows, columns].
        gram: float32 [columns, columns].
        code: Its codes and scales stay.
        steps: Most steps.
        tolerance: Ends when a step has lowered the error by less than this fraction of what all
            steps did.
    """
    blocks = _inverse_blocks(gram, code)
    residual = code.gathered((weight - code.decode()) @ gram)
    direction = conditioned = _blockwise(blocks, residual)
    product = _dot(residual, conditioned)
    gained = 0.0
    for _ in range(steps):
        if product <= 0.0:
            return
        spread = code.spread(direction)
        image = code.gathered(spread @ gram)
        curvature = _dot(direction, image)
        if curvature <= 0.0:
            return
        length = product / curvature
        code.codebooks += length * direction
        gain = length * product
        gained += gain
        if gain < tolerance * gained:
            return
        residual -= length * image
        conditioned = _blockwise(blocks, residual)
        following = _dot(residual, conditioned)
        direction = conditioned + (following / product) * direction
        product = following


def update_scales(weight: torch.Tensor, gram: torch.Tensor, code: AdditiveCode) -> None:
    """Changes ``code.scales`` so that the output error becomes smallest."""
    unscaled = AdditiveCode(
        codes=code.codes, codebooks=code.codebooks, scales=torch.ones_like(code.scales)
    ).decode()
    image = unscaled @ gram
    wanted = (image * weight).unflatten(0, (len(code.scales), -1)).flatten(1).sum(dim=1)
    energy = (image * unscaled).unflatten(0, (len(code.scales), -1)).flatten(1).sum(dim=1)
    found = wanted / energy
    # A row whose code is zero, or of no use, keeps its scale: the search divides by it. A negative
    # one is as good as any, until the search finds better codes.
    code.scales = torch.where((energy > 0.0) & (found != 0.0), found, code.scales)


def _inverse_blocks(gram: torch.Tensor, code: AdditiveCode) -> torch.Tensor:
    """[codebooks, vectors, in group size, in group size]: of each vector with the others fixed."""
    count, size, _, wide = code.codebooks.shape
    groups = gram.shape[0] // wide
    places = torch.arange(groups, device=gram.device)
    own = gram.view(groups, wide, groups, wide)[places, :, places]  # [groups, in size, in size]
    weights = code.scales.square().unsqueeze(1)
    blocks = gram.new_zeros(count, size, wide, wide)
    for number in range(count):
        # How much of each group's block every vector has.
        shares = gram.new_zeros(size * groups)
        index = code.codes[..., number].long() * groups + places
        shares.index_add_(0, index.flatten(), weights.expand(-1, groups).flatten())
        blocks[number] = torch.tensordot(shares.view(size, groups), own, dims=1)
    mean = float(blocks.diagonal(dim1=2, dim2=3).mean())
    identity = torch.eye(wide, device=gram.device)
    # Vectors without a group are left where they are: their residual is 0.
    return torch.linalg.inv(blocks + max(mean * _RIDGE, 1e-30) * identity)


def _blockwise(blocks: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return values @ blocks


def _dot(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left * right).sum(dtype=torch.float64))
