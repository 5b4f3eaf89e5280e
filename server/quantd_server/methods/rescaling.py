"""The other side of scaled input channels: what takes up 1 / s, and how it is stored (worker only).

A norm is stored in 16 bits mostly, so its weight divided by s has to be rounded. The scales follow
the rounding: s becomes the ratio of the old and the new weight, so that scaled weights and divided
norm make up for each other exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from quantd_server.methods.base import TensorTask
from quantd_server.methods.scale_folding import Folding


def divided_norm(
    weight: torch.Tensor, scales: torch.Tensor, *, plus_one: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The weight of a norm divided by ``scales``, and the scales that this makes exact.

    Args:
        weight: [channels], in the dtype in which it is stored, which the result has too.
        scales: float32 [channels], positive.
        plus_one: the norm computes with 1 + weight (Gemma).
    """
    factor = weight.to(torch.float32) + (1.0 if plus_one else 0.0)
    quotient = factor / scales - (1.0 if plus_one else 0.0)
    result = quotient.to(weight.dtype)
    new_factor = result.to(torch.float32) + (1.0 if plus_one else 0.0)
    exact = factor / new_factor
    # Where the factor is zero nothing reaches the linears; where the quotient has left the range
    # of the dtype, the channel stays as it was.
    usable = torch.isfinite(exact) & (exact > 0.0) & torch.isfinite(new_factor)
    return torch.where(usable, result, weight), torch.where(usable, exact, 1.0)


def rescaled(
    value: torch.Tensor,
    divisor: tuple[Folding, torch.Tensor] | None,
    multiplier: torch.Tensor | None,
) -> torch.Tensor:
    """A weight [out, in] or bias [out] with the rows of ``divisor`` divided and its columns
    multiplied, in the dtype of ``value``.
    """
    result = value.to(torch.float32)
    if multiplier is not None:
        result = result * multiplier
    if divisor is not None:
        folding, scales = divisor
        rows = slice(folding.first_row, folding.first_row + folding.channels)
        result = result.clone()
        result[rows] /= scales if result.dim() == 1 else scales.unsqueeze(1)
    return result.to(value.dtype)


def stored(value: torch.Tensor, task: TensorTask) -> npt.NDArray[Any]:
    """The bytes of a tensor as its task stores it."""
    value = value.contiguous().cpu()
    size = value.numel() * value.element_size()
    if size != task.parts[0].nbytes:
        raise ValueError(f"{task.target_name} takes {task.parts[0].nbytes} bytes, not {size}")
    return value.reshape(-1).view(torch.uint8).numpy().astype(np.uint8, copy=False)
