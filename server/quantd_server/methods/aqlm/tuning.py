"""Tunes a block after its linears were solved: codebooks, scales, norms and biases, by gradient
steps on the squared difference of the block's output (arXiv:2401.06118, section 3.4; worker only).

The block always computes with what would be written: float16 codebooks and scales, norms in the
type in which they are stored. Steps are taken on float32 values behind those.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from quantd_server.kernels.aqlm.additive_code import AdditiveCode
from quantd_server.kernels.aqlm.gradients import code_gradients
from quantd_server.kernels.aqlm.solver import LARGEST
from quantd_server.methods.blockwise import OutputError, TunableBlock

_BETAS = (0.9, 0.95)
"""Of Adam."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TuningSettings:
    """See ``AqlmConfig``, whose fields begin with ``finetune_``."""

    max_epochs: int
    lr: float
    batch_size: int
    early_stop: int
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """What the block is to go on with."""

    codes: Mapping[str, AdditiveCode]
    """By the names of the weights; codebooks and scales are exactly float16."""
    others: Mapping[str, torch.Tensor]
    """Norms and biases, in the type in which they are stored."""
    untuned: OutputError
    """Before the first step."""


def tune(
    block: TunableBlock,
    codes: Mapping[str, AdditiveCode],
    others: Mapping[str, torch.Tensor],
    settings: TuningSettings,
    check_cancelled: Callable[[], None],
) -> Tuned:
    """The best of what the epochs ended with, and what they began with.

    Args:
        block: To be tuned.
        codes: Of its weights, by name; codebooks and scales are exactly float16.
        others: Its other parameters that may change, by name, as they are stored.
        settings: How.
        check_cancelled: Raises to stop; called between steps.
    """
    with torch.inference_mode(False):
        parameters = _Parameters(codes, others, settings.lr)
        generator = torch.Generator().manual_seed(settings.seed)
        best = parameters.written()
        untuned = least = block.error(block_values(*best))
        worse = 0
        for epoch in range(settings.max_epochs):
            batches = list(block.batches(settings.batch_size, generator))
            for number, batch in enumerate(batches):
                check_cancelled()
                now = parameters.written()
                gradients = block.gradients(batch, block_values(*now))
                done = (epoch + number / len(batches)) / settings.max_epochs
                parameters.step(now[0], gradients, settings.lr * (1.0 - done))
            now = parameters.written()
            found = block.error(block_values(*now))
            if found.squared_error < least.squared_error:
                best, least, worse = now, found, 0
            else:
                worse += 1
            if worse >= settings.early_stop or not math.isfinite(found.squared_error):
                break
        return Tuned(codes=best[0], others=best[1], untuned=untuned)


Written = tuple[dict[str, AdditiveCode], dict[str, torch.Tensor]]


def block_values(
    codes: Mapping[str, AdditiveCode], others: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What a block computes with, float32."""
    weights = {name: code.decode() for name, code in codes.items()}
    return weights | {name: value.float() for name, value in others.items()}


class _Parameters:
    """What is tuned, in float32, with the optimizer's memory of it."""

    def __init__(
        self, codes: Mapping[str, AdditiveCode], others: Mapping[str, torch.Tensor], lr: float
    ) -> None:
        self._codes = {name: code.codes for name, code in codes.items()}
        self._codebooks = {name: code.codebooks.clone() for name, code in codes.items()}
        self._scales = {name: code.scales.clone() for name, code in codes.items()}
        self._types = {name: value.dtype for name, value in others.items()}
        self._others = {name: value.to(torch.float32, copy=True) for name, value in others.items()}
        tuned = [*self._codebooks.values(), *self._scales.values(), *self._others.values()]
        self._optimizer = torch.optim.Adam(tuned, lr=lr, betas=_BETAS)

    def written(self) -> Written:
        """As they would be stored."""
        codes = {
            name: AdditiveCode(
                codes=codes,
                codebooks=_float16(self._codebooks[name]),
                scales=_float16(self._scales[name]),
            )
            for name, codes in self._codes.items()
        }
        return codes, {name: value.to(self._types[name]) for name, value in self._others.items()}

    def step(
        self, codes: Mapping[str, AdditiveCode], gradients: dict[str, torch.Tensor], lr: float
    ) -> None:
        """One step of the optimizer. ``gradients``: of the weights and the other parameters."""
        self._optimizer.param_groups[0]["lr"] = lr
        for name, code in codes.items():
            found = code_gradients(code, gradients.pop(name))
            self._codebooks[name].grad, self._scales[name].grad = found
        for name, value in self._others.items():
            value.grad = gradients.get(name)
        self._optimizer.step()


def _float16(values: torch.Tensor) -> torch.Tensor:
    """The nearest float16, as float32."""
    return values.clamp(-LARGEST, LARGEST).half().float()
