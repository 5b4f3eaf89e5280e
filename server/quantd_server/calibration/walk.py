"""Calibration data on its way through a model, block by block (worker only: imports torch).

For each decoder block the caller gets its linears in the order of their dependence, with the
statistics of what they see, and gives the weights that take their place; later linears, and later
blocks, see the outputs of those. Each linear is multiplied once per token, and attention is
computed once: see ``replay``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import torch

from quantd_server.calibration.activations import ActivationStore
from quantd_server.calibration.block_step import BlockStep, WalkOptions
from quantd_server.calibration.model import BlockwiseModel
from quantd_server.calibration.stages import discover
from quantd_server.calibration.step_size import PROBE_TOKENS, tokens_per_step


def no_progress(_fraction: float) -> None:
    """Told nobody."""


def never_cancelled() -> None:
    """Goes on."""


class BlockWalk:
    """Iterating gives the decoder blocks in order.

    Args:
        model: Read block by block.
        sequences: Token ids, [length] each, none empty.
        store: Holds activations between passes.
        targets: Names of the linears whose statistics are wanted; None means all.
        sequential: Whether later linears of a block see the results of replaced earlier ones. If
            not, there is one stage with all linears, and each is multiplied twice per token.
        tuning_epochs: Of blocks that are tuned when their linears are replaced, most of them; 0 if
            they are not. See ``BlockStep.tunable``.
        bf16_products: Multiply weights and inputs as bfloat16 and store inputs so; sums of the
            statistics are float32 in any case.
        step_tokens: Tokens of a micro-batch, rounded to whole sequences, at least one; None
            chooses by the work of the largest block.
        on_progress: Told the finished part of the current block, 0 to 1, after every step.
        check_cancelled: Called between matrix products; raises to end the walk.
    """

    def __init__(
        self,
        model: BlockwiseModel,
        sequences: Sequence[torch.Tensor],
        *,
        store: ActivationStore,
        targets: Collection[str] | None = None,
        sequential: bool = True,
        tuning_epochs: int = 0,
        bf16_products: bool = True,
        step_tokens: int | None = None,
        on_progress: Callable[[float], None] = no_progress,
        check_cancelled: Callable[[], None] = never_cancelled,
    ) -> None:
        self._model = model
        self._store = store
        self._options = WalkOptions(
            targets=targets,
            sequential=sequential,
            tuning_epochs=tuning_epochs,
            dtype=torch.bfloat16 if bf16_products else torch.float32,
            on_progress=on_progress,
            check_cancelled=check_cancelled,
        )
        self._first_block = 0
        self.micro_batches = micro_batches(sequences, step_tokens or default_step_tokens(model))
        """Token ids, [batch, length] each."""

    def go_on(self, first_block: int, states: Iterable[torch.Tensor]) -> None:
        """Begin at ``first_block`` instead, with the hidden states before it.

        ``states``: as ``states`` gave them in an earlier walk, one for each micro-batch.
        """
        self._first_block = first_block
        for number, value in enumerate(states):
            self._store.put(("states", number), value)

    def __iter__(self) -> Iterator[BlockStep]:
        model = self._model
        tokens = self.micro_batches[0][:1, :PROBE_TOKENS]
        model.embed(torch.zeros_like(tokens))  # finds arguments that depend on tokens
        probe = model.embed(tokens)
        for number, tokens in enumerate(self.micro_batches):
            self._options.check_cancelled()
            embedded = model.embed(tokens)  # in any case: it finds how blocks are called
            if not self._first_block:
                self._store.put(("states", number), embedded)
        for index, block in list(enumerate(model.blocks))[self._first_block :]:
            model.load_block(index)
            try:
                call = model.calls(probe.shape[0], probe.shape[1])[index]
                stages = discover(block, model.linears(index), call, probe)
                step = BlockStep(
                    model,
                    index,
                    stages if self._options.sequential else stages.in_one(),
                    self._store,
                    self.micro_batches,
                    self._options,
                )
                yield step
                step.finish()
            finally:
                model.free_block(index)

    def states(self, number: int) -> torch.Tensor:
        """Hidden states of a micro-batch, [batch, length, hidden], before the current block.

        After the walk, those after the last block.
        """
        return self._store.get(("states", number))

    def all_states(self) -> Iterator[torch.Tensor]:
        """Those of all micro-batches, in their order."""
        return map(self.states, range(len(self.micro_batches)))


def micro_batches(sequences: Sequence[torch.Tensor], tokens: int) -> list[torch.Tensor]:
    """Sequences of equal length together, [batch, length] each, at most ``tokens`` tokens.

    No padding, so no masks for it; the order of equally long sequences is kept.
    """
    by_length: dict[int, list[torch.Tensor]] = {}
    for sequence in sequences:
        by_length.setdefault(len(sequence), []).append(sequence)
    batches = []
    for length, alike in by_length.items():
        count = max(1, tokens // length)
        batches += [
            torch.stack(alike[begin : begin + count]) for begin in range(0, len(alike), count)
        ]
    return batches


def default_step_tokens(model: BlockwiseModel) -> int:
    """By the work of the largest block."""
    return min(
        tokens_per_step({name: linear.shape for name, linear in model.linears(index).items()})
        for index in range(len(model))
    )
