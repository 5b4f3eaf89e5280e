"""Codes and codebooks to begin with: k-means on what is left. Used by workers only."""

from __future__ import annotations

import torch

from quantd_server.kernels.aqlm.additive_code import AdditiveCode

_SMALLEST_SCALE = 1e-9
_CHUNK_BYTES = 64 << 20
"""Of a table of distances."""

_ENOUGH = 1e-2
"""k-means ends when an iteration lowers the distance by less than this fraction. What follows
changes all codes and vectors."""


def initial_code(
    weight: torch.Tensor,
    *,
    codebooks: int,
    vectors: int,
    out_group: int,
    in_group: int,
    iterations: int,
    points_per_vector: int,
    seed: int,
) -> AdditiveCode:
    """Rows divided by their norm, then k-means on the groups, codebook after codebook.

    Args:
        weight: float32 [rows, columns].
        codebooks, vectors: How many; there have to be as many groups as vectors.
        out_group, in_group: Rows and columns of a group.
        iterations: Most iterations of k-means.
        points_per_vector: Groups a vector that k-means looks at, chosen at random; 0 for all.
        seed: Of the choice.
    """
    rows, columns = weight.shape
    scales = weight.unflatten(0, (-1, out_group)).flatten(1).norm(dim=1) + _SMALLEST_SCALE
    code = AdditiveCode(
        codes=torch.zeros(
            (rows // out_group, columns // in_group, codebooks),
            dtype=torch.int32,
            device=weight.device,
        ),
        codebooks=weight.new_zeros(codebooks, vectors, out_group, in_group),
        scales=scales,
    )
    rest = (code.grouped(weight) / scales[:, None, None]).flatten(0, 1)
    generator = torch.Generator().manual_seed(seed)
    for number in range(codebooks):
        sample = rest
        if points_per_vector and points_per_vector * vectors < len(rest):
            chosen = torch.randperm(len(rest), generator=generator)[: points_per_vector * vectors]
            sample = rest[chosen.to(rest.device)]
        centroids = _centroids(sample, vectors, iterations, generator)
        nearest, _ = _nearest(rest, centroids)
        rest = rest - centroids[nearest]
        code.codebooks[number] = centroids.unflatten(1, (out_group, in_group))
        code.codes[..., number] = nearest.view(code.codes.shape[:2]).to(torch.int32)
    return code


def _centroids(
    points: torch.Tensor, count: int, iterations: int, generator: torch.Generator
) -> torch.Tensor:
    """Lloyd's algorithm from points chosen at random, float32 [count, dimensions]."""
    chosen = torch.randperm(len(points), generator=generator)[:count]
    centroids = points[chosen.to(points.device)].clone()
    before = float("inf")
    for _ in range(iterations):
        nearest, distance = _nearest(points, centroids)
        members = torch.bincount(nearest, minlength=count)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, points)
        centroids = torch.where(
            (members > 0).unsqueeze(1), sums / members.clamp(min=1).unsqueeze(1), centroids
        )
        if distance > before * (1.0 - _ENOUGH):
            break
        before = distance
    return centroids


def _nearest(points: torch.Tensor, centroids: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The nearest centroid of each point, and the sum of squared distances."""
    squares = centroids.square().sum(dim=1)
    step = max(1, _CHUNK_BYTES // (4 * len(centroids)))
    found, total = [], 0.0
    for part in points.split(step):
        table = torch.addmm(squares, part, centroids.T, alpha=-2.0)
        distance, nearest = table.min(dim=1)
        found.append(nearest)
        total += float((distance + part.square().sum(dim=1)).sum(dtype=torch.float64))
    return torch.cat(found), total
