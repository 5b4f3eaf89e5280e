"""What is said of a linear that has been solved: its errors, and what went wrong (worker only)."""

from __future__ import annotations

import torch

from quantd_server.errors import Finding, Severity
from quantd_server.kernels.output_error import error_ratio, squared_output_error
from quantd_server.methods.base import TensorTask
from quantd_server.methods.blockwise import QuantizedLinear
from quantd_server.methods.linear_weights import finding

FEWEST_TOKENS = 32
"""With fewer tokens than this, statistics say nothing about a linear: it is solved without."""


def measured(
    task: TensorTask,
    weight: torch.Tensor,
    effective: torch.Tensor,
    gram: torch.Tensor,
    *,
    rounding_error: float,
    warnings: tuple[Finding, ...],
) -> QuantizedLinear:
    """A solved linear with its errors.

    Args:
        task: Of its weight.
        weight: float32 [out, in], of the source; it is used up.
        effective: float32 [out, in], what readers will compute with.
        gram: float32 [in, in], of its input.
        rounding_error: The squared error of the output without a look at the input.
        warnings: About it.
    """
    energy = squared_output_error(weight, gram)
    squared_sum = _sum_of_squares(weight)
    difference = weight.sub_(effective)
    return QuantizedLinear(
        task=task,
        weight=effective,
        squared_error=_sum_of_squares(difference),
        squared_sum=squared_sum,
        output_error=error_ratio(squared_output_error(difference, gram), energy),
        rounding_output_error=error_ratio(rounding_error, energy),
        warnings=warnings,
    )


def undersampled(name: str, tokens: int, instead: str) -> Finding:
    """Says that too few tokens reached a linear; ``instead``: what became of its weights."""
    return finding(
        Severity.WARNING,
        "TOO_FEW_TOKENS",
        "spec.calibration",
        f"{tokens} calibration tokens, fewer than {FEWEST_TOKENS}, reached a layer, whose weights "
        f"were {instead}",
        "calibrate with more, or with more varied, data",
        [name],
    )


def indefinite(name: str, problem: str, instead: str, remedy: str) -> Finding:
    """Says that nothing can be done with the second moment of a linear's inputs."""
    return finding(
        Severity.WARNING,
        "SECOND_MOMENT_INDEFINITE",
        "spec.calibration",
        f"the second moment of a layer's inputs is not {problem}; its weights were {instead}",
        remedy,
        [name],
    )


def saturated(name: str, parts: str) -> Finding:
    """Says that weights were cut off; ``parts``: how many groups or rows of the linear."""
    return finding(
        Severity.WARNING,
        "WEIGHTS_SATURATED",
        "spec.source_uri",
        f"{parts} of a layer hold weights too large for a float16 scale; the largest were cut off",
        "leave this module out, or choose bitsandbytes or GGUF",
        [name],
    )


def _sum_of_squares(values: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2
