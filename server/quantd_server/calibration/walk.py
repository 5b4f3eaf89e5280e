"""Calibration data on its way through a model, block by block (worker only: imports torch).

For each decoder block the caller gets its linears in the order of their dependence, with the
statistics of what they see, and gives the weights that take their place; later linears, and later
blocks, see the outputs of those.

A block is run once more for each stage, but what was computed is not computed again. The pass that
collects the inputs of stage k takes the stored inputs of stage k-1, multiplies them with the
replaced weights, and runs on from there; results of linears, and of whole modules that end with
one (attention, MLP), are stored while later passes need them. So each linear is multiplied once
per token, and attention is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from quantd_server.calibration.activations import ActivationStore
from quantd_server.calibration.model import BlockwiseModel, is_transposed
from quantd_server.calibration.stages import (
    BlockStages,
    Forward,
    Tail,
    containers,
    discover,
    forwards,
    out_features,
)
from quantd_server.calibration.statistics import (
    InputStatistics,
    input_statistics,
    matrix_products_in_bf16,
)
from quantd_server.calibration.step_size import PROBE_TOKENS, tokens_per_step


class _Captured(Exception):
    """Every input of the stage was seen; the rest of the forward pass is not needed."""


class LinearGroup:
    """Linears of a stage that share their input."""

    def __init__(self, step: BlockStep, number: int, names: tuple[str, ...]) -> None:
        self._step = step
        self._number = number
        self.names = names
        """Checkpoint names without ``.weight``; only those the walk was asked for."""

    def statistics(self) -> InputStatistics:
        """Of the input, over all tokens that reach the group; computed anew at every call."""
        return self._step.statistics(self._number)

    def inputs(self) -> Iterator[torch.Tensor]:
        """The input itself, [tokens, K] a micro-batch."""
        return self._step.inputs(self._number)


class Stage:
    """Linears of a block that depend on the same earlier ones and not on each other."""

    def __init__(self, step: BlockStep, groups: list[LinearGroup]) -> None:
        self._step = step
        self.groups = groups

    def weight(self, name: str) -> torch.Tensor:
        """The weight of a linear, a new float32 tensor [out, in]."""
        return self._step.weight(name)

    def replace(self, name: str, weight: torch.Tensor) -> None:
        """Lets the rest of the walk see ``weight`` [out, in] (in the original basis) instead."""
        self._step.replace(name, weight)


class BlockWalk:
    """Iterating gives the decoder blocks in order, as ``BlockStep``s.

    Args:
        model: Read block by block.
        sequences: Token ids, [length] each.
        store: Holds activations between passes.
        targets: Names of the linears whose statistics are wanted; None means all.
        sequential: Whether later linears of a block see the results of replaced earlier ones. If
            not, there is one stage with all linears, and each is multiplied twice per token.
        bf16_products: Multiply weights and inputs as bfloat16 and store inputs so; sums of the
            statistics are float32 in any case.
        tokens_per_step: Tokens in a micro-batch, rounded down to whole sequences, at least one.
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
        bf16_products: bool = True,
        tokens_per_step: int | None = None,
        on_progress: Callable[[float], None] = lambda fraction: None,
        check_cancelled: Callable[[], None] = lambda: None,
    ) -> None:
        self.model = model
        self.store = store
        self.targets = targets
        self.sequential = sequential
        self.dtype = torch.bfloat16 if bf16_products else torch.float32
        self.on_progress = on_progress
        self.check_cancelled = check_cancelled
        self.micro_batches = micro_batches(
            sequences, tokens_per_step or default_tokens_per_step(model)
        )
        self.probe: torch.Tensor

    def __iter__(self) -> Iterator[BlockStep]:
        self.probe = self.model.embed(self.micro_batches[0][:1, :PROBE_TOKENS])
        for number, tokens in enumerate(self.micro_batches):
            self.check_cancelled()
            self.store.put(("states", number), self.model.embed(tokens))
        for index in range(len(self.model)):
            self.model.load_block(index)
            try:
                step = BlockStep(self, index)
                yield step
                step.finish()
            finally:
                self.model.free_block(index)

    def states(self, number: int) -> torch.Tensor:
        """Hidden states of a micro-batch before the current block, after the last at the end."""
        return self.store.get(("states", number))


class BlockStep:
    """One decoder block of a walk."""

    def __init__(self, walk: BlockWalk, index: int) -> None:
        self.index = index
        self._walk = walk
        self._model = walk.model
        self._store = walk.store
        self._block = self._model.blocks[index]
        self._linears = self._model.linears(index)
        probe = walk.probe
        call = self._model.calls(probe.shape[0], probe.shape[1])[index]
        self._stages = discover(self._block, self._linears, call, probe)
        if not walk.sequential:
            self._stages = in_one_stage(self._stages)
        self._groups = [group for groups in self._stages.stages for group in groups]
        self._group_of = {
            name: number for number, group in enumerate(self._groups) for name in group
        }
        self._stage_of = {
            name: stage
            for stage, groups in enumerate(self._stages.stages)
            for group in groups
            for name in group
        }
        self._containers = {
            path: module
            for path, module in containers(self._block, self._linears).items()
            if path in self._stages.tails
        }
        self._last_pass = len(self._stages.stages)
        self._last_use = last_uses(self._block, self._linears, self._stages, self._last_pass)
        self._products: dict[str, torch.Tensor] = {}
        self._remaining = self._walk_through()
        steps = self._last_pass + 1 + sum(1 for group in self._groups if self._wanted(group))
        self._steps_total = steps * len(walk.micro_batches)
        self._steps_done = 0

    @property
    def linear_names(self) -> tuple[str, ...]:
        """All linears of the block, by their checkpoint names."""
        return tuple(self._linears)

    def stages(self) -> Iterator[Stage]:
        """The stages in order, those without targets left out. Can be iterated once.

        Weights of a stage are replaced before the next is asked for.
        """
        return self._remaining

    def finish(self) -> None:
        """Runs what was not asked for, with the weights as they are, to the block's outputs."""
        for _ in self._remaining:
            pass

    # What Stage and LinearGroup ask for

    def weight(self, name: str) -> torch.Tensor:
        """A new float32 tensor [out, in]."""
        module = self._linears[name]
        weight = module.weight.detach().to(torch.float32, copy=True)  # type: ignore[operator, union-attr]
        return weight.T.contiguous() if is_transposed(module) else weight

    def replace(self, name: str, weight: torch.Tensor) -> None:
        """From the next pass on."""
        module = self._linears[name]
        expected = tuple(module.weight.shape)  # type: ignore[union-attr]
        given = weight.T if is_transposed(module) else weight
        if tuple(given.shape) != expected:
            raise ValueError(f"{name} has a weight of shape {expected}, not {tuple(given.shape)}")
        module._parameters["weight"] = nn.Parameter(
            given.to(self._model.device, self._walk.dtype), requires_grad=False
        )

    def statistics(self, group: int) -> InputStatistics:
        """Of the inputs of a group whose stage is the current one."""
        module = self._linears[self._groups[group][0]]
        rows, columns = module.weight.shape  # type: ignore[union-attr, misc]
        return input_statistics(
            self._stepping(self.inputs(group)),
            int(rows if is_transposed(module) else columns),  # type: ignore[arg-type]
            device=self._model.device,
            bf16_products=self._walk.dtype is torch.bfloat16,
            after_step=self._walk.check_cancelled,
        )

    def inputs(self, group: int) -> Iterator[torch.Tensor]:
        """[tokens, K] for every micro-batch in which a token reaches the group."""
        for number in range(len(self._walk.micro_batches)):
            if ("input", group, number) in self._store:
                yield self._store.get(("input", group, number)).flatten(0, -2)

    # Passes

    def _walk_through(self) -> Iterator[Stage]:
        for stage, groups in enumerate(self._stages.stages):
            self._pass(stage)
            wanted = [
                LinearGroup(self, self._group_of[group[0]], self._wanted(group))
                for group in groups
                if self._wanted(group)
            ]
            if wanted:
                yield Stage(self, wanted)
        self._pass(self._last_pass)
        self._walk.on_progress(1.0)

    def _wanted(self, group: tuple[str, ...]) -> tuple[str, ...]:
        targets = self._walk.targets
        return group if targets is None else tuple(name for name in group if name in targets)

    @torch.inference_mode()
    def _pass(self, stage: int) -> None:
        """Collects the inputs of ``stage``, or the block's outputs when that is the last pass."""
        for number, tokens in enumerate(self._walk.micro_batches):
            self._walk.check_cancelled()
            step = _Step(self, stage, number)
            with (
                suppress(_Captured),
                forwards(self._linears, step.linear),
                forwards(self._containers, step.container),
            ):
                returned = self._model.calls(*tokens.shape)[self.index].run(
                    self._block, self._store.get(("states", number))
                )
                if stage == self._last_pass:
                    self._store.put(("states", number), self._model.states_of(returned))
            self._forget_inputs(stage - 1, number)
            self._count_step()
        self._products.clear()

    def _forget_inputs(self, stage: int, number: int) -> None:
        if stage >= 0:
            for group in self._stages.stages[stage]:
                self._store.drop(("input", self._group_of[group[0]], number))

    def _stepping(self, inputs: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        for value in inputs:
            yield value
            self._count_step()

    def _count_step(self) -> None:
        self._steps_done += 1
        self._walk.on_progress(min(1.0, self._steps_done / self._steps_total))

    def multiply(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """What a linear returns, float32, for an input [..., K]."""
        self._walk.check_cancelled()
        module = self._linears[name]
        weight = self._products.get(name)
        if weight is None:
            weight = module.weight.to(self._walk.dtype)  # type: ignore[operator, union-attr]
            weight = weight.T.contiguous() if is_transposed(module) else weight
            self._products[name] = weight
        with matrix_products_in_bf16(enabled=self._walk.dtype is torch.bfloat16):
            output = functional.linear(value.to(self._walk.dtype), weight).float()
        bias: Any = module.bias
        return output if bias is None else output.add_(bias)


class _Step:
    """One micro-batch in one pass: what linears and modules do instead of their own forward."""

    def __init__(self, step: BlockStep, stage: int, number: int) -> None:
        self._step = step
        self._stage = stage
        self._number = number
        self._stages = step._stages
        self._store = step._store
        self._inputs: dict[int, torch.Tensor] = {}
        self._captured: set[int] = set()
        last = stage == step._last_pass
        names = [] if last else [name for group in self._stages.stages[stage] for name in group]
        self._expected = set(names)
        # Which experts will be called is not known before the end.
        self._stops = bool(names) and not self._stages.conditional.intersection(names)

    def linear(self, name: str) -> Forward:
        """The forward of a linear in this pass."""
        step, stage = self._step, self._step._stage_of[name]
        rows = out_features(step._linears[name])

        def capture(value: torch.Tensor) -> torch.Tensor:
            group = step._group_of[name]
            if group not in self._captured:
                self._captured.add(group)
                held = value.to(step._walk.dtype, copy=True)
                self._store.put(("input", group, self._number), held)
            self._expected.discard(name)
            if not step._walk.sequential:
                return step.multiply(name, value)
            if self._stops and not self._expected:
                raise _Captured
            return value.new_zeros((*value.shape[:-1], rows))

        def skip(value: torch.Tensor) -> torch.Tensor:
            return value.new_zeros((*value.shape[:-1], rows))

        def known(value: torch.Tensor) -> torch.Tensor:
            return self._result(name, name, stage)

        if not step._walk.sequential and self._stage == step._last_pass:
            return lambda value: step.multiply(name, value)
        if stage == self._stage:
            return capture
        return skip if stage > self._stage else known

    def container(self, path: str) -> Forward:
        """The forward of a module with a tail in this pass."""
        module, tail = self._step._containers[path], self._stages.tails[path]
        if tail.stage < self._stage and self._step._walk.sequential:
            return lambda *args, **kwargs: tail.returned(
                self._result(path, tail.linear, tail.stage)
            )
        own = type(module).forward
        return lambda *args, **kwargs: own(module, *args, **kwargs)

    def _result(self, owner: str, linear: str, stage: int) -> torch.Tensor:
        """The output of ``linear``, of an earlier stage, stored under the name of ``owner``."""
        key = ("output", owner, self._number)
        last_use = self._step._last_use[owner]
        if stage < self._stage - 1:
            return self._store.pop(key) if self._stage == last_use else self._store.get(key)
        output = self._step.multiply(linear, self._input(linear))
        if last_use > self._stage:
            self._store.put(key, output)
        return output

    def _input(self, linear: str) -> torch.Tensor:
        group = self._step._group_of[linear]
        if group not in self._inputs:
            self._inputs[group] = self._store.get(("input", group, self._number))
        return self._inputs[group]


def micro_batches(sequences: Sequence[torch.Tensor], tokens: int) -> list[torch.Tensor]:
    """Sequences of equal length together, [batch, length] each, at most ``tokens`` tokens.

    No padding, so no masks for it; the order of equally long sequences is kept.
    """
    by_length: dict[int, list[torch.Tensor]] = {}
    for sequence in sequences:
        if len(sequence):
            by_length.setdefault(len(sequence), []).append(sequence)
    return [
        torch.stack(alike[begin : begin + count])
        for length, alike in by_length.items()
        for count in [max(1, tokens // length)]
        for begin in range(0, len(alike), count)
    ]


def default_tokens_per_step(model: BlockwiseModel) -> int:
    """By the work of the largest block."""
    return min(
        tokens_per_step(
            {
                name: tuple(module.weight.shape)  # type: ignore[union-attr, misc]
                for name, module in model.linears(index).items()
            }
        )
        for index in range(len(model))
    )


def in_one_stage(stages: BlockStages) -> BlockStages:
    """All groups as one stage."""
    groups = tuple(group for stage in stages.stages for group in stage)
    return BlockStages(stages=(groups,) if groups else (), conditional=stages.conditional, tails={})


def last_uses(
    block: nn.Module, linears: Mapping[str, nn.Module], stages: BlockStages, last_pass: int
) -> dict[str, int]:
    """The last pass that asks for the result of each linear and each module with a tail.

    A module inside another one with a tail is asked until the pass that computes the outer tail.
    """
    inner = containers(block, linears)
    uses: dict[str, int] = {}

    def until(module: nn.Module, itself: Tail | None) -> int:
        enclosing = [
            stages.tails[path].stage
            for path, outer in inner.items()
            if path in stages.tails
            and stages.tails[path] is not itself
            and outer is not module
            and any(part is module for part in outer.modules())
        ]
        return min(enclosing, default=last_pass)

    for name, module in linears.items():
        uses[name] = until(module, None)
    for path, module in inner.items():
        if path in stages.tails:
            uses[path] = until(module, stages.tails[path])
    return uses
