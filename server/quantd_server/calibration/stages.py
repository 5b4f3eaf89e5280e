"""In which order the linear layers of a block depend on each other (worker only: imports torch).

Nothing is known about the architecture; the block is asked. All linears that are not placed yet
return NaN: those that are called without a NaN in their input depend on placed ones only, so they
are the next stage. Linears that are called with the very same tensor form a group. No weight is
multiplied for this; placed linears return random numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
import torch
from torch import nn

from quantd_server.calibration.model import BlockCall
from quantd_server.errors import QuantdError, quoted

Forward = Callable[..., Any]

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

    def stage_of(self, linear: str) -> int:
        return next(
            index
            for index, groups in enumerate(self.stages)
            if any(linear in group for group in groups)
        )


@contextmanager
def forwards(
    modules: Mapping[str, nn.Module], forward_of: Callable[[str], Forward]
) -> Iterator[None]:
    """Within, calling ``modules[name]`` calls ``forward_of(name)``."""
    for name, module in modules.items():
        module.forward = forward_of(name)
    try:
        yield
    finally:
        for module in modules.values():
            del module.forward


def out_features(module: nn.Module) -> int:
    """Of a linear; ``nf`` is Conv1D's name for it."""
    return int(getattr(module, "out_features", None) or module.nf)  # type: ignore[arg-type]


def containers(block: nn.Module, linears: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Modules inside ``block`` that hold linears and have a forward, by path, outermost first."""
    own = set(linears.values())
    return {
        path: module
        for path, module in block.named_modules()
        if path
        and module not in own
        and type(module).forward is not nn.ModuleList.forward
        and any(inner in own for inner in module.modules())
    }


class _Run:
    """What one forward pass of the discovery saw."""

    def __init__(self) -> None:
        self.inputs: dict[str, torch.Tensor] = {}
        self.outputs: dict[str, torch.Tensor] = {}
        self.returned: dict[str, Any] = {}


@torch.inference_mode()
def discover(
    block: nn.Module, linears: Mapping[str, nn.Module], call: BlockCall, states: torch.Tensor
) -> BlockStages:
    """The stages of ``block``, found with a few tokens.

    Args:
        block: Loaded, but for the weights of its linears.
        linears: Its linear layers by name.
        call: How the model calls it for the shape of ``states``.
        states: Hidden states [batch, length, hidden].

    Raises QuantdError ARCHITECTURE_NOT_SUPPORTED when a linear is called twice in a pass.
    """
    inner = containers(block, linears)
    found: list[list[list[str]]] = []
    placed: set[str] = set()
    conditional: set[str] = set()
    while True:
        run = _run(block, linears, inner, placed, call, states)
        ready = [
            name
            for name, value in run.inputs.items()
            if name not in placed and not torch.isnan(value).any()
        ]
        if not ready:
            break
        tokens = states.shape[0] * states.shape[1]
        conditional.update(name for name in ready if run.inputs[name][..., 0].numel() != tokens)
        groups: dict[int, list[str]] = {}
        for name in ready:
            groups.setdefault(id(run.inputs[name]), []).append(name)
        found.append(list(groups.values()))
        placed.update(ready)
    missing = [name for name in linears if name not in placed]
    conditional.update(missing)
    if missing and not found:
        found.append([])
    _place_like_siblings(missing, found)
    conditional.update(_siblings(conditional, linears))
    stage_of = {
        name: stage for stage, groups in enumerate(found) for group in groups for name in group
    }
    return BlockStages(
        stages=tuple(tuple(map(tuple, groups)) for groups in found),
        conditional=frozenset(conditional),
        tails=_tails(run, inner, linears, stage_of),
    )


def _run(
    block: nn.Module,
    linears: Mapping[str, nn.Module],
    inner: Mapping[str, nn.Module],
    placed: set[str],
    call: BlockCall,
    states: torch.Tensor,
) -> _Run:
    run = _Run()
    generator = torch.Generator(states.device).manual_seed(0)

    def linear_forward(name: str) -> Forward:
        rows = out_features(linears[name])

        def forward(value: torch.Tensor) -> torch.Tensor:
            if name in run.inputs:
                raise _called_twice(name)
            shape = (*value.shape[:-1], rows)
            if name in placed:
                output = torch.randn(shape, generator=generator, device=value.device)
            else:
                output = torch.full(shape, torch.nan, device=value.device)
            run.inputs[name], run.outputs[name] = value, output
            return output

        return forward

    def container_forward(path: str) -> Forward:
        own = type(inner[path]).forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            run.returned[path] = own(inner[path], *args, **kwargs)
            return run.returned[path]

        return forward

    with forwards(linears, linear_forward), forwards(inner, container_forward):
        call.run(block, states)
    return run


def _tails(
    run: _Run,
    inner: Mapping[str, nn.Module],
    linears: Mapping[str, nn.Module],
    stage_of: Mapping[str, int],
) -> dict[str, Tail]:
    names = {module: name for name, module in linears.items()}
    by_identity = {id(output): name for name, output in run.outputs.items()}
    tails: dict[str, Tail] = {}
    patterns: dict[str, Tail] = {}
    for path, module in inner.items():
        inside = [names[part] for part in module.modules() if part in names]
        result = run.returned.get(path)
        if path in run.returned:
            position, output, length = _only_tensor(result)
            linear = by_identity.get(id(output))
        else:
            # An expert that no token reached works like one that was reached.
            model = patterns.get(_NUMBER.sub("#", f".{path}."))
            if model is None:
                continue
            position, length = model.position, model.length
            ending = _NUMBER.sub("#", model.linear)
            linear = next(
                (
                    name
                    for name in inside
                    if _NUMBER.sub("#", name).endswith(ending.rpartition("#")[2])
                ),
                None,
            )
        if linear not in inside:
            continue
        last = max(stage_of[name] for name in inside)
        if stage_of[linear] == last:
            tails[path] = Tail(linear=linear, stage=last, position=position, length=length)
            patterns.setdefault(_NUMBER.sub("#", f".{path}."), tails[path])
    return tails


def _only_tensor(returned: Any) -> tuple[int | None, torch.Tensor | None, int]:
    if isinstance(returned, torch.Tensor):
        return None, returned, 0
    if type(returned) is tuple:
        present = [place for place, value in enumerate(returned) if value is not None]
        if len(present) == 1 and isinstance(returned[present[0]], torch.Tensor):
            return present[0], returned[present[0]], len(returned)
    return None, None, 0


def _siblings(some: set[str], linears: Mapping[str, nn.Module]) -> set[str]:
    """Linears that differ from one of ``some`` in a number only."""
    # The first number is the block's, the same in all.
    patterns = {_NUMBER.sub("#", name) for name in some}
    return {name for name in linears if _NUMBER.sub("#", name) in patterns}


def _place_like_siblings(missing: list[str], found: list[list[list[str]]]) -> None:
    """Experts that no token reached go where those go whose names differ in the number only."""
    places = {
        _NUMBER.sub("#", name): (stage, number)
        for stage, groups in enumerate(found)
        for number, group in enumerate(groups)
        for name in group
    }
    added: dict[tuple[int, int, str], list[str]] = {}
    for name in missing:
        # What nothing ever calls comes last, and sees no token.
        stage, number = places.get(_NUMBER.sub("#", name), (len(found) - 1, -1))
        module = name.rpartition(".")[0] if number >= 0 else name
        key = (stage, number, module)
        if key not in added:
            added[key] = []
            found[stage].append(added[key])
        added[key].append(name)


def _called_twice(name: str) -> QuantdError:
    return QuantdError(
        reason="ARCHITECTURE_NOT_SUPPORTED",
        message=f"{quoted(name)} is used more than once in one pass of its block",
        remedy="use a method without calibration, such as gguf or bitsandbytes",
        field="spec.source_uri",
        kind="precondition",
    )
