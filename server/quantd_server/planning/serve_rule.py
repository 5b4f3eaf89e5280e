"""The form of a fact about an engine and a kind of checkpoint."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from quantd_server.engine.specification import Engine
from quantd_server.errors import Severity
from quantd_server.planning.artifact import Artifact

Capability = tuple[int, ...]
"""Compute capability such as (8, 6); empty where not known, and then no rule about it applies."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One fact; ``{engine}`` in its texts is the engine's name."""

    reason: str
    severity: Severity
    engines: frozenset[Engine]
    methods: frozenset[str]
    applies: Callable[[Artifact, Capability], bool] = lambda _artifact, _capability: True
    message: str
    remedy: str


def engines(*names: Engine) -> frozenset[Engine]:
    """A set of engines."""
    return frozenset(names)
