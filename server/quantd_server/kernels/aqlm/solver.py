"""AQLM's solver for one weight, on torch tensors. Used by workers only.

Codebooks, scales and codes take turns: each is changed to lower the error of the output,
tr(D G Dᵀ), with the others as they are. The published algorithm (arXiv:2401.06118, algorithm 1)
takes gradient steps on codebooks and scales and keeps a beam of codes; here the codebooks are the
solution of their least-squares problem, and two small codebooks are searched without a beam.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from quantd_server.kernels.aqlm.additive_code import AdditiveCode
from quantd_server.kernels.aqlm.code_search import search_codes
from quantd_server.kernels.aqlm.codebook_update import update_codebooks, update_scales
from quantd_server.kernels.aqlm.initial_code import initial_code
from quantd_server.kernels.output_error import squared_output_error

_STEP_TOLERANCE = 1e-3
"""Of ``update_codebooks``."""

_DAMPING = 1e-4
"""Added to the second moment's diagonal, as a fraction of its mean, so that columns which saw no
input keep their weight."""

LARGEST = 65504.0
"""Of float16: no scale, and no value of a codebook, is larger."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Solution:
    """A quantized weight."""

    code: AdditiveCode
    """Codebooks and scales are exactly float16."""
    squared_error: float
    """tr(D G Dᵀ)."""
    initial_squared_error: float
    """The same of the k-means that it began with, which knows the weight only."""
    epochs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SolverSettings:
    """Names and defaults are those of the published quantizer; see ``AqlmConfig``."""

    num_codebooks: int
    nbits_per_codebook: int
    out_group_size: int
    in_group_size: int
    relative_mse_tolerance: float
    max_epochs: int
    steps_per_epoch: int
    beam_size: int
    init_max_iter: int
    init_max_points_per_centroid: int
    seed: int = 0


def solve(
    weight: torch.Tensor,
    gram: torch.Tensor,
    settings: SolverSettings,
    *,
    blind: bool = False,
    threads: int | None = None,
    after_epoch: Callable[[], None] = lambda: None,
) -> Solution:
    """Quantize a weight float32 [rows, columns] whose input has the second moment ``gram``.

    Args:
        weight: Finite, and rows of ``out_group_size`` times ``columns`` weights have a norm of at
            most ``LARGEST``. Not changed.
        gram: float32 [columns, columns]; its scale does not matter. Not changed.
        settings: How.
        blind: Solve as if all inputs were alike, and measure with ``gram`` only.
        threads: That search, on a CPU; torch's own number if not given.
        after_epoch: Called between steps, a few times an epoch; raises to stop.
    """
    threads = threads or torch.get_num_threads()
    damped = torch.eye(len(gram), device=gram.device) if blind else _damped(gram)
    code = initial_code(
        weight,
        codebooks=settings.num_codebooks,
        vectors=2**settings.nbits_per_codebook,
        out_group=settings.out_group_size,
        in_group=settings.in_group_size,
        iterations=settings.init_max_iter,
        points_per_vector=settings.init_max_points_per_centroid,
        seed=settings.seed,
    )
    after_epoch()
    initial_error = squared_output_error(weight - code.decode(), gram)
    before = math.inf
    epochs = 0
    while epochs < settings.max_epochs:
        update_codebooks(
            weight, damped, code, steps=settings.steps_per_epoch, tolerance=_STEP_TOLERANCE
        )
        update_scales(weight, damped, code)
        after_epoch()
        search_codes(weight, damped, code, beam_size=settings.beam_size, threads=threads)
        after_epoch()
        epochs += 1
        error = squared_output_error(weight - code.decode(), damped)
        if error >= before * (1.0 - settings.relative_mse_tolerance):
            break
        before = error
    update_codebooks(
        weight, damped, code, steps=settings.steps_per_epoch, tolerance=_STEP_TOLERANCE
    )
    update_scales(weight, damped, code)
    after_epoch()
    code.codebooks = _float16(code.codebooks)
    code.scales = _float16(code.scales)
    search_codes(weight, damped, code, beam_size=settings.beam_size, threads=threads)
    error = squared_output_error(weight - code.decode(), gram)
    return Solution(
        code=code, squared_error=error, initial_squared_error=initial_error, epochs=epochs
    )


def _damped(gram: torch.Tensor) -> torch.Tensor:
    """Divided by the mean of its diagonal, so that products stay in float32's range."""
    mean = float(gram.diagonal().mean(dtype=torch.float64))
    damped = gram / mean if mean > 0.0 else torch.zeros_like(gram)
    damped.diagonal().add_(_DAMPING)
    return damped


def _float16(values: torch.Tensor) -> torch.Tensor:
    """The nearest float16, as float32."""
    return values.clamp(-LARGEST, LARGEST).half().float()
