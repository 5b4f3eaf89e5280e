"""One forward pass of a block over one micro-batch, without what is known already (worker only).

A block runs once more for each stage. In the pass that collects the inputs of stage k

- linears of stage k store their input and return zeros, and a module with a tail is left as soon
  as it has no other linear of that stage;
- linears of stage k-1 multiply their stored input;
- linears of earlier stages return their stored output;
- a module whose tail is of an earlier stage returns that linear's output and is not run at all;
- norms that nothing needs any more are not run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from quantd_server.calibration.activations import ActivationStore
from quantd_server.calibration.interception import (
    Forward,
    containers,
    forwards,
    own_forward,
    side_modules,
)
from quantd_server.calibration.linears import Linear
from quantd_server.calibration.stages import BlockStages, Tail


class _Captured(Exception):
    """Every input of the stage was seen: the rest of the forward pass is not needed."""


class _Left(Exception):
    """The rest of the innermost module with a tail is not needed."""


class BlockParts:
    """The modules of a block and what is known about their order."""

    def __init__(
        self, block: nn.Module, linears: Mapping[str, Linear], stages: BlockStages
    ) -> None:
        self.block = block
        self.linears = linears
        self.stages = stages
        self.groups = [group for groups in stages.stages for group in groups]
        self.group_of = {name: n for n, group in enumerate(self.groups) for name in group}
        self.stage_of = {
            name: number
            for number, groups in enumerate(stages.stages)
            for group in groups
            for name in group
        }
        self.last_pass = len(stages.stages)
        self.modules = {name: linear.module for name, linear in linears.items()}
        self.containers = {
            path: module
            for path, module in containers(block, self.modules.values()).items()
            if path in stages.tails
        }
        self.side_modules = side_modules(block, self.modules.values())
        names = {module: name for name, module in self.modules.items()}
        self.inside = {
            path: frozenset(names[part] for part in module.modules() if part in names)
            for path, module in self.containers.items()
        }
        """The linears in each module with a tail."""
        self.last_use = self._last_uses()

    def _last_uses(self) -> dict[str, int]:
        """The last pass that asks for the result of each linear and each module with a tail.

        One inside another module with a tail is asked until the pass that computes the outer tail.
        """
        tails = self.stages.tails

        def until(module: nn.Module, itself: Tail | None) -> int:
            enclosing = [
                tails[path].stage
                for path, outer in self.containers.items()
                if tails[path] is not itself and any(part is module for part in outer.modules())
            ]
            return min(enclosing, default=self.last_pass)

        return {name: until(module, None) for name, module in self.modules.items()} | {
            path: until(module, tails[path]) for path, module in self.containers.items()
        }


class Replay:
    """A pass of ``parts`` for the inputs of one stage, or for the block's result after the last.

    Args:
        store: Holds ``("input", group, micro-batch)`` and ``("output", owner, micro-batch)``.
        stage: Whose inputs are collected; ``parts.last_pass`` for the block's result.
        micro_batch: Its number.
        dtype: Of products and of stored inputs.
        in_turn: Whether results of earlier stages are known; if not, all linears multiply.
        check_cancelled: Called before every product; raises to end the pass.
    """

    def __init__(
        self,
        parts: BlockParts,
        store: ActivationStore,
        *,
        stage: int,
        micro_batch: int,
        dtype: torch.dtype,
        in_turn: bool,
        check_cancelled: Callable[[], None],
    ) -> None:
        self._parts = parts
        self._store = store
        self._stage = stage
        self._micro_batch = micro_batch
        self._dtype = dtype
        self._in_turn = in_turn
        self._check_cancelled = check_cancelled
        self._inputs: dict[int, torch.Tensor] = {}
        self._captured: set[int] = set()
        self._open: list[set[str]] = []
        """For each module with a tail that runs now, linears of the stage to be captured in it."""
        stages = parts.stages
        wanted = stages.stages[stage] if stage < parts.last_pass else ()
        self._wanted = frozenset(name for group in wanted for name in group)
        self._missing = set(self._wanted)
        # How many experts will be called is not known before the end.
        self._stops = in_turn and not stages.conditional.intersection(self._wanted)

    def run(self, forward: Forward) -> Any:
        """What ``forward``, which calls the block, returns; None when it was left early."""
        parts = self._parts
        try:
            with (
                forwards(parts.modules, self._linear),
                forwards(parts.containers, self._container),
                forwards(parts.side_modules, self._side_module),
            ):
                return forward()
        except _Captured:
            return None

    def _linear(self, name: str) -> Forward:
        stage = self._parts.stage_of[name]
        linear = self._parts.linears[name]

        def multiply(value: torch.Tensor) -> torch.Tensor:
            return self._multiply(linear, value)

        def capture(value: torch.Tensor) -> torch.Tensor:
            self._capture(name, value)
            return zeros(value) if self._in_turn else multiply(value)

        def zeros(value: torch.Tensor) -> torch.Tensor:
            return value.new_zeros((*value.shape[:-1], linear.shape[0]))

        if stage == self._stage:
            return capture
        if not self._in_turn:
            return multiply
        if stage > self._stage:
            return zeros
        return lambda _value: self._result(name, name)

    def _container(self, path: str) -> Forward:
        tail = self._parts.stages.tails[path]
        if tail.stage < self._stage:
            return lambda *_args, **_kwargs: tail.returned(self._result(path, tail.linear))
        own = own_forward(self._parts.containers[path])
        wanted = self._parts.inside[path] & self._wanted
        if not wanted:
            return own

        def until_captured(*args: Any, **kwargs: Any) -> Any:
            self._open.append(set(wanted))
            try:
                return own(*args, **kwargs)
            except _Left as left:
                value: torch.Tensor = left.args[0]
                rows = self._parts.linears[tail.linear].shape[0]
                return tail.returned(value.new_zeros((*value.shape[:-1], rows)))
            finally:
                self._open.pop()

        return until_captured

    def _side_module(self, name: str) -> Forward:
        if name in self._parts.stages.idle[self._stage]:
            return lambda value, *_args, **_kwargs: value
        return own_forward(self._parts.side_modules[name])

    def _capture(self, name: str, value: torch.Tensor) -> None:
        group = self._parts.group_of[name]
        if group not in self._captured:
            self._captured.add(group)
            # A copy: the model may go on to write into its own.
            held = value.to(self._dtype, copy=True)
            self._store.put(("input", group, self._micro_batch), held)
        self._missing.discard(name)
        if self._stops and not self._missing:
            raise _Captured
        for missing in self._open:
            missing.discard(name)
        if self._open and not self._open[-1]:
            raise _Left(value)

    def _result(self, owner: str, linear: str) -> torch.Tensor:
        """The output of an earlier linear, stored under the name of ``owner``."""
        key = ("output", owner, self._micro_batch)
        last_use = self._parts.last_use[owner]
        if self._parts.stage_of[linear] < self._stage - 1:
            return self._store.pop(key) if self._stage == last_use else self._store.get(key)
        value = self._input(linear)
        output = self._multiply(self._parts.linears[linear], value)
        if last_use > self._stage:
            self._store.put(key, output)
        return output

    def _multiply(self, linear: Linear, value: torch.Tensor) -> torch.Tensor:
        self._check_cancelled()
        return linear.multiply(value, self._dtype)

    def _input(self, linear: str) -> torch.Tensor:
        group = self._parts.group_of[linear]
        if group not in self._inputs:
            self._inputs[group] = self._store.get(("input", group, self._micro_batch))
        return self._inputs[group]
