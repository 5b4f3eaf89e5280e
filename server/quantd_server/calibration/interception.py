"""Letting parts of a block do something else than their own forward (worker only)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

Forward = Callable[..., Any]


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


def own_forward(module: nn.Module) -> Forward:
    """The forward of the module's class, also while it does something else."""
    forward = type(module).forward
    return lambda *args, **kwargs: forward(module, *args, **kwargs)


def containers(block: nn.Module, linears: Collection[nn.Module]) -> dict[str, nn.Module]:
    """Modules inside ``block`` that hold linears and have a forward, by path, outermost first."""
    own = set(linears)
    return {
        path: module
        for path, module in block.named_modules()
        if path
        and module not in own
        and type(module).forward is not nn.ModuleList.forward
        and not own.isdisjoint(module.modules())
    }


def side_modules(block: nn.Module, linears: Collection[nn.Module]) -> dict[str, nn.Module]:
    """Children of ``block`` without linears: norms, mostly."""
    own = set(linears)
    return {
        name: module for name, module in block.named_children() if own.isdisjoint(module.modules())
    }
