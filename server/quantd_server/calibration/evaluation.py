"""Perplexity before and after quantization, and how far predictions differ (worker only: torch).

Both models run block by block over the same tokens. Of the output head a slice of the vocabulary
is in memory at a time, and of the logits a slice for some tokens: sums over the vocabulary are
kept instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec
import torch

from quantd_server.calibration.activations import ActivationStore
from quantd_server.calibration.interception import Forward, forwards
from quantd_server.calibration.memory import HEAD_SLICE_BYTES, LOGIT_SLICE_BYTES
from quantd_server.calibration.model import BlockwiseModel
from quantd_server.calibration.walk import (
    default_step_tokens,
    micro_batches,
    never_cancelled,
    no_progress,
)


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What `Evaluation` of the spec says."""

    source_perplexity: float
    """exp of the mean negative log-likelihood of each next token."""
    perplexity: float
    kl_divergence: float
    """Mean over tokens of KL(source || result), in nats."""
    top_token_agreement: float
    tokens: int
    """That were predicted."""


class _Sums:
    """Per token, sums over the part of the vocabulary seen so far, for two sets of logits a, b.

    With m the largest logit so far, Σ exp(a-m) gives log Σ exp a, and Σ exp(a-m)·(a-b) the
    divergence: KL = Σ p·(a-b) - logΣexp a + logΣexp b, where p = softmax a. Both are rescaled
    when m grows, as in online softmax (Milakov and Gimelshein, 2018). Sums are float64.
    """

    def __init__(self, tokens: int, device: torch.device) -> None:
        self.largest = torch.full((2, tokens), -torch.inf, device=device)
        self.top = torch.zeros((2, tokens), dtype=torch.long, device=device)
        self.sums = torch.zeros((2, tokens), dtype=torch.float64, device=device)
        self.difference = torch.zeros(tokens, dtype=torch.float64, device=device)
        self.target = torch.zeros((2, tokens), device=device)

    def add(
        self, place: slice, a: torch.Tensor, b: torch.Tensor, begin: int, targets: torch.Tensor
    ) -> None:
        """Logits [tokens of ``place``, rows] of the vocabulary from ``begin`` on."""
        for number, logits in enumerate((a, b)):
            largest, top = logits.max(-1)
            before = self.largest[number, place]
            grew = largest > before
            now = torch.where(grew, largest, before)
            scale = (before - now).double().exp()
            weights = (logits - now[:, None]).exp_()
            self.sums[number, place] = self.sums[number, place] * scale + weights.sum(
                -1, dtype=torch.float64
            )
            if number == 0:
                part = weights.mul_(a - b).sum(-1, dtype=torch.float64)
                self.difference[place] = self.difference[place] * scale + part
            self.largest[number, place] = now
            self.top[number, place] = torch.where(grew, top + begin, self.top[number, place])
            inside = (targets >= begin) & (targets < begin + logits.shape[-1])
            own = logits.gather(-1, (targets - begin).clamp(0, logits.shape[-1] - 1)[:, None])[:, 0]
            self.target[number, place] = torch.where(inside, own, self.target[number, place])

    def log_normalizers(self) -> torch.Tensor:
        """Log Σ exp of the logits, [2, tokens]."""
        return self.largest.double() + self.sums.log()

    def negative_log_likelihoods(self) -> torch.Tensor:
        """Of the tokens that came, [2, tokens]."""
        return self.log_normalizers() - self.target.double()

    def divergences(self) -> torch.Tensor:
        """KL(a || b) of the distributions, [tokens], in nats."""
        first, second = self.log_normalizers()
        return self.difference / self.sums[0] - first + second

    def agreements(self) -> torch.Tensor:
        """Whether the most likely token is the same, [tokens]."""
        return self.top[0] == self.top[1]


class Evaluation:
    """Runs sequences of token ids through both models and compares what they predict.

    Every token of a sequence but its first is predicted from those before it.

    Args:
        source: Before quantization.
        result: The same architecture with other parameters, on the same device.
        sequences: [length] each, at least 2 tokens long.
        store: Holds the hidden states of both.
        bf16_products: As in ``BlockWalk``; the head is multiplied in float32 in any case.
        on_progress: Told the finished part, 0 to 1.
        check_cancelled: Called between steps; raises to end the evaluation.
    """

    def __init__(
        self,
        source: BlockwiseModel,
        result: BlockwiseModel,
        sequences: Sequence[torch.Tensor],
        *,
        store: ActivationStore,
        bf16_products: bool = False,
        on_progress: Callable[[float], None] = no_progress,
        check_cancelled: Callable[[], None] = never_cancelled,
    ) -> None:
        self._models = (source, result)
        self._batches = micro_batches(sequences, default_step_tokens(source))
        self._store = store
        self._dtype = torch.bfloat16 if bf16_products else torch.float32
        self._on_progress = on_progress
        self._check_cancelled = check_cancelled

    @torch.inference_mode()
    def run(self) -> Comparison:
        """The figures, over all predicted tokens."""
        for number, model in enumerate(self._models):
            for batch, tokens in enumerate(self._batches):
                self._check_cancelled()
                self._store.put((number, batch), model.embed(tokens))
        blocks = len(self._models[0])
        for index in range(blocks):
            for number in range(2):
                self._run_block(number, index)
            self._on_progress((index + 1) / (blocks + 1))
        sums = [_Sums(tokens[:, 1:].numel(), self._models[0].device) for tokens in self._batches]
        for begin, end, heads in self._head_slices():
            for batch in range(len(self._batches)):
                self._add_logits(batch, begin, heads, sums[batch])
            self._on_progress((blocks + end) / (blocks + 1))
        return _summary(sums)

    def _run_block(self, number: int, index: int) -> None:
        model = self._models[number]
        model.load_block(index)
        linears = model.linears(index)

        def multiply(name: str) -> Forward:
            return lambda value: linears[name].multiply(value, self._dtype)

        try:
            with forwards({name: linear.module for name, linear in linears.items()}, multiply):
                for batch in range(len(self._batches)):
                    self._check_cancelled()
                    states = self._store.get((number, batch))
                    self._store.put((number, batch), model.run_block(index, states))
        finally:
            model.free_block(index)

    def _head_slices(self) -> Iterator[tuple[int, float, list[torch.Tensor]]]:
        """First token, part of the vocabulary that is done after it, and rows of both heads."""
        vocabulary, width = self._models[0].parameters.shape(self._models[0].head_name())
        rows = max(1, HEAD_SLICE_BYTES // (4 * width))
        for begin in range(0, vocabulary, rows):
            end = min(vocabulary, begin + rows)
            heads = [
                model.parameters.read_rows(model.head_name(), begin, end).to(
                    model.device, torch.float32
                )
                for model in self._models
            ]
            yield begin, end / vocabulary, heads

    def _add_logits(self, batch: int, begin: int, heads: list[torch.Tensor], sums: _Sums) -> None:
        tokens = self._batches[batch].to(self._models[0].device)
        targets = tokens[:, 1:].flatten()
        states = [self._store.get((number, batch))[:, :-1].flatten(0, 1) for number in range(2)]
        # Not longer than a sequence: some models have no more positions.
        count = min(tokens.shape[1], max(1, LOGIT_SLICE_BYTES // (4 * len(heads[0]))))
        for first in range(0, len(targets), count):
            self._check_cancelled()
            place = slice(first, min(first + count, len(targets)))
            source, result = (
                model.logits(states[number][None, place], begin, heads[number])[0]
                for number, model in enumerate(self._models)
            )
            sums.add(place, source, result, begin, targets[place])


def _summary(sums: list[_Sums]) -> Comparison:
    before, after = torch.cat([part.negative_log_likelihoods() for part in sums], -1).mean(-1)
    divergences = torch.cat([part.divergences() for part in sums])
    agreements = torch.cat([part.agreements() for part in sums])
    return Comparison(
        source_perplexity=float(before.exp()),
        perplexity=float(after.exp()),
        # Rounding may take the divergence of equal distributions below 0.
        kl_divergence=max(0.0, float(divergences.mean())),
        top_token_agreement=float(agreements.double().mean()),
        tokens=len(divergences),
    )
