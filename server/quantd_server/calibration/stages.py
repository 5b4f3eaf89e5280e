"""In which order the linear layers of a block depend on each other (worker only: imports torch).

Nothing is known about the architecture; the block is asked. All linears that are not placed yet
return NaN: those that are called without a NaN in their input depend on placed ones only, so they
are the next stage. Linears that are called with the very same tensor form a group. No weight is
multiplied for this: placed linears return random numbers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from typing import Any

import msgspec
import torch
from torch import nn

from quantd_server.calibration.interception import (
    Forward,
    containers,
    forwards,
    own_forward,
    side_modules,
)
from quantd_server.calibration.linears import Linear
from quantd_server.calibration.model import BlockCall
from quantd_server.errors import QuantdError, quoted

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


class Tail(msgspec.Struct, frozen=True, kw_only=True):
    """A module whose result is that of its last linear, unchanged.

    Once that linear's result is known, nothing else inside needs to be computed again.
    """

    linear: str
    stage: int
    """Of the linear, the last one in the module."""
    position: int | None
    """Of the linear's result in a returned tuple whose other elements are None."""
    length: int
    """Of that tuple."""

    def returned(self, output: torch.Tensor) -> Any:
        """What the module returns when its linear returns ``output``."""
        if self.position is None:
            return output
        return tuple(output if place == self.position else None for place in range(self.length))


class BlockStages(msgspec.Struct, frozen=True, kw_only=True):
    """The linears of a block in the order of their dependence."""

    stages: tuple[tuple[tuple[str, ...], ...], ...]
    """For each stage its groups of linears with the same input."""
    conditional: frozenset[str]
    """Linears that see some tokens only: experts."""
    tails: dict[str, Tail]
    """By path within the block, outer modules before those inside."""
    idle: tuple[frozenset[str], ...]
    """For each stage, and for the block's result, the children of the block without linears that
    need not run once the results of earlier stages are known."""

    def in_one(self) -> BlockStages:
        """All groups as one stage, nothing left out."""
        groups = tuple(group for stage in self.stages for group in stage)
        return BlockStages(
            stages=(groups,), conditional=self.conditional, tails={}, idle=(frozenset(),) * 2
        )


class _Probe:
    """Runs a block on a few tokens, with random numbers or NaN for the results of its parts."""

    def __init__(
        self,
        block: nn.Module,
        linears: Mapping[str, Linear],
        call: BlockCall,
        states: torch.Tensor,
    ) -> None:
        self.block = block
        self.linears = linears
        self.call = call
        self.states = states
        self.modules = {name: linear.module for name, linear in linears.items()}
        self.containers = containers(block, self.modules.values())
        self.side_modules = side_modules(block, self.modules.values())
        self.inputs: dict[str, torch.Tensor] = {}
        self.outputs: dict[str, torch.Tensor] = {}
        self.returned: dict[str, Any] = {}
        self.result: Any = None
        self.irregular: set[str] = set()
        """Side modules that do more than to turn a tensor into another of its shape."""

    def run(
        self,
        *,
        unknown: Collection[str] = (),
        unknown_module: str | None = None,
        known_tails: Mapping[str, Tail] | None = None,
    ) -> None:
        """One forward pass; what it saw is in the attributes.

        Args:
            unknown: Linears that return NaN; the others return random numbers.
            unknown_module: A side module that returns NaN.
            known_tails: Modules that are not run: their tail's result is known.
        """
        self.inputs, self.outputs, self.returned = {}, {}, {}
        generator = torch.Generator(self.states.device).manual_seed(0)

        def linear(name: str) -> Forward:
            def forward(value: torch.Tensor) -> torch.Tensor:
                if name in self.inputs:
                    raise _called_twice(name)
                self.inputs[name] = value
                self.outputs[name] = self._output(name, value.shape, generator, unknown)
                return self.outputs[name]

            return forward

        def container(path: str) -> Forward:
            own = own_forward(self.containers[path])

            def forward(*args: Any, **kwargs: Any) -> Any:
                tail = (known_tails or {}).get(path)
                if tail is not None:
                    shape = args[0].shape if args else self.states.shape
                    return tail.returned(self._output(tail.linear, shape, generator, ()))
                self.returned[path] = own(*args, **kwargs)
                return self.returned[path]

            return forward

        def side(name: str) -> Forward:
            own = own_forward(self.side_modules[name])

            def forward(*args: Any, **kwargs: Any) -> Any:
                result = own(*args, **kwargs)
                if not args or getattr(result, "shape", None) != args[0].shape:
                    self.irregular.add(name)
                return torch.full_like(result, torch.nan) if name == unknown_module else result

            return forward

        with (
            forwards(self.modules, linear),
            forwards(self.containers, container),
            forwards(self.side_modules, side),
        ):
            self.result = self.call.run(self.block, self.states)

    def _output(
        self,
        name: str,
        shape: Sequence[int],
        generator: torch.Generator,
        unknown: Collection[str],
    ) -> torch.Tensor:
        full = (*shape[:-1], self.linears[name].shape[0])
        if name in unknown:
            return torch.full(full, torch.nan, device=self.states.device)
        return torch.randn(full, generator=generator, device=self.states.device)


@torch.inference_mode()
def discover(
    block: nn.Module, linears: Mapping[str, Linear], call: BlockCall, states: torch.Tensor
) -> BlockStages:
    """The stages of ``block``, found with a few tokens.

    Args:
        block: Loaded, but for the weights of its linears.
        linears: Its linear layers by name.
        call: How the model calls it for the shape of ``states``.
        states: Hidden states [batch, length, hidden].

    Raises QuantdError ARCHITECTURE_NOT_SUPPORTED when a linear is called twice in a pass.
    """
    probe = _Probe(block, linears, call, states)
    sizes = _sizes(call)
    tokens = states.shape[0] * states.shape[1]
    found: list[list[list[str]]] = []
    unknown = list(linears)
    conditional: set[str] = set()
    while True:
        probe.run(unknown=unknown)
        groups: dict[int, list[str]] = {}
        for name, value in probe.inputs.items():
            if name in unknown and not _has_nan(value):
                groups.setdefault(id(value), []).append(name)
                if value.shape[:-1].numel() != tokens:
                    conditional.add(name)
        if not groups:
            break
        found.append(list(groups.values()))
        if _sizes(call) != sizes:
            raise _writes_into_arguments()
        placed = {name for group in groups.values() for name in group}
        unknown = [name for name in unknown if name not in placed]
    conditional.update(unknown)
    _place_like_siblings(unknown, found)
    patterns = {_NUMBER.sub("#", name) for name in conditional}
    stages = tuple(tuple(map(tuple, groups)) for groups in found)
    tails = _tails(probe, {name: k for k, stage in enumerate(stages) for g in stage for name in g})
    return BlockStages(
        stages=stages,
        conditional=frozenset(name for name in linears if _NUMBER.sub("#", name) in patterns),
        tails=tails,
        idle=tuple(
            frozenset() if conditional else _idle(probe, stages, tails, number)
            for number in range(len(stages) + 1)
        ),
    )


def _sizes(call: BlockCall) -> list[int]:
    """Of the dictionaries and lists that a block is given."""
    values = (*call.args, *call.kwargs.values())
    return [len(value) for value in values if isinstance(value, MutableMapping | list)]


def _has_nan(value: Any) -> bool:
    return bool(torch.isnan(value).any())


def _idle(
    probe: _Probe,
    stages: tuple[tuple[tuple[str, ...], ...], ...],
    tails: Mapping[str, Tail],
    number: int,
) -> frozenset[str]:
    """Side modules whose result the inputs of stage ``number``, or the block's, do not depend on.

    Not asked where experts are: a choice of experts depends on numbers without becoming NaN.
    """
    known = {path: tail for path, tail in tails.items() if tail.stage < number}
    wanted = {name for group in stages[number] for name in group} if number < len(stages) else set()
    idle = []
    for name in probe.side_modules.keys() - probe.irregular:
        probe.run(unknown_module=name, known_tails=known)
        if wanted:
            needed = any(_has_nan(probe.inputs[linear]) for linear in wanted & set(probe.inputs))
        else:
            result = probe.result[0] if isinstance(probe.result, tuple) else probe.result
            needed = _has_nan(result)
        if not needed:
            idle.append(name)
    return frozenset(idle)


def _tails(probe: _Probe, stage_of: Mapping[str, int]) -> dict[str, Tail]:
    """From the last run of ``probe``, in which every linear that was called returned numbers."""
    names = {module: name for name, module in probe.modules.items()}
    by_identity = {id(output): name for name, output in probe.outputs.items()}
    tails: dict[str, Tail] = {}
    patterns: dict[str, Tail] = {}
    for path, module in probe.containers.items():
        inside = [names[part] for part in module.modules() if part in names]
        pattern = _NUMBER.sub("#", f".{path}.")
        if path in probe.returned:
            position, output, length = _only_tensor(probe.returned[path])
            linear = by_identity.get(id(output))
        elif pattern in patterns:
            # An expert that no token reached works like one that was reached.
            like = patterns[pattern]
            position, length = like.position, like.length
            ending = _NUMBER.sub("#", like.linear)
            linear = next((name for name in inside if _NUMBER.sub("#", name) == ending), None)
        else:
            continue
        last = max(stage_of[name] for name in inside)
        if linear in inside and stage_of[linear] == last:
            tails[path] = Tail(linear=linear, stage=last, position=position, length=length)
            patterns.setdefault(pattern, tails[path])
    return tails


def _only_tensor(returned: Any) -> tuple[int | None, torch.Tensor | None, int]:
    """A returned tensor, or the only one in a returned tuple with its place and the length."""
    if isinstance(returned, torch.Tensor):
        return None, returned, 0
    if type(returned) is tuple:
        present = [place for place, value in enumerate(returned) if value is not None]
        if len(present) == 1 and isinstance(returned[present[0]], torch.Tensor):
            return present[0], returned[present[0]], len(returned)
    return None, None, 0


def _place_like_siblings(missing: list[str], found: list[list[list[str]]]) -> None:
    """Experts that no token reached go where those go whose names differ in the number only."""
    places = {
        _NUMBER.sub("#", name): (stage, number)
        for stage, groups in enumerate(found)
        for number, group in enumerate(groups)
        for name in group
    }
    if missing and not found:
        found.append([])
    added: dict[tuple[int, str], list[str]] = {}
    for name in missing:
        # What nothing ever calls comes last, and sees no token.
        stage, number = places.get(_NUMBER.sub("#", name), (len(found) - 1, -1))
        key = (stage, name.rpartition(".")[0] if number >= 0 else name)
        if key not in added:
            added[key] = []
            found[stage].append(added[key])
        added[key].append(name)


def _writes_into_arguments() -> QuantdError:
    return QuantdError(
        reason="ARCHITECTURE_NOT_SUPPORTED",
        message="a block hands results to later ones in its arguments, not in its states",
        remedy="use a method without calibration, such as gguf or bitsandbytes",
        field="spec.source_uri",
        kind="precondition",
    )


def _called_twice(name: str) -> QuantdError:
    return QuantdError(
        reason="ARCHITECTURE_NOT_SUPPORTED",
        message=f"{quoted(name)} is used more than once in one pass of its block",
        remedy="use a method without calibration, such as gguf or bitsandbytes",
        field="spec.source_uri",
        kind="precondition",
    )
