"""What the input of linear layers looks like over all tokens (worker only: imports torch)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from quantd_server.calibration.matrix_products import matrix_products_in_bf16
from quantd_server.kernels import bfloat16_products

PANEL = 192
"""Rows of a gram matrix computed at once, from the diagonal on; the rest is mirrored."""


@dataclass(frozen=True, kw_only=True)
class InputStatistics:
    """Of K input channels over all tokens that reach a linear."""

    gram: torch.Tensor
    """Σ x xᵀ, [K, K] float32, symmetric."""
    mean_abs: torch.Tensor
    """Mean of |x| per channel, [K] float32; 0 without tokens."""
    tokens: int


@torch.no_grad()  # Not inference mode: the caller may write into what it gets.
def input_statistics(
    inputs: Iterable[torch.Tensor],
    channels: int,
    *,
    device: torch.device,
    bf16_products: bool,
    after_product: Callable[[], None],
) -> InputStatistics:
    """The statistics of ``inputs``, tensors [..., channels] of any float type.

    Sums are float32. ``bf16_products`` says that the inputs are bfloat16 values, whose products
    are exact in bfloat16 arithmetic with float32 sums.
    """
    gram = torch.zeros((channels, channels), device=device)
    total = torch.zeros(channels, dtype=torch.float64, device=device)
    own_kernel = bf16_products and device.type == "cpu" and bfloat16_products.available()
    tokens = 0
    for value in inputs:
        flat = value.reshape(-1, channels)
        if own_kernel:
            flat = flat.to(torch.bfloat16).contiguous()
            bfloat16_products.add_second_moment(flat, gram, total, torch.get_num_threads())
            after_product()
        else:
            _add_products(flat, gram, total, after_product, bf16_products=bf16_products)
        tokens += len(flat)
    _mirror(gram)
    return InputStatistics(gram=gram, mean_abs=(total / max(1, tokens)).float(), tokens=tokens)


def _add_products(
    flat: torch.Tensor,
    gram: torch.Tensor,
    total: torch.Tensor,
    after_product: Callable[[], None],
    *,
    bf16_products: bool,
) -> None:
    """What ``bfloat16_products.add_second_moment`` does, on any device."""
    flat = flat.to(torch.float32, copy=True)
    with matrix_products_in_bf16(enabled=bf16_products):
        for begin in range(0, len(gram), PANEL):
            end = min(len(gram), begin + PANEL)
            gram[begin:end, begin:].addmm_(flat[:, begin:end].T, flat[:, begin:])
            after_product()
    total += flat.abs_().sum(dim=0)  # a norm of order 1 takes seven times as long


def _mirror(gram: torch.Tensor) -> None:
    """Copies what is above the diagonal below it."""
    for begin in range(0, len(gram), PANEL):
        end = min(len(gram), begin + PANEL)
        gram[end:, begin:end] = gram[begin:end, end:].T
        diagonal = gram[begin:end, begin:end]
        # Both halves are sums of the same products, not always in the same order.
        diagonal.copy_(diagonal.triu() + diagonal.triu(1).T)
