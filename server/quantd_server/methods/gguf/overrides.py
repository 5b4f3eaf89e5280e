"""Tensor types that the user sets by a pattern on tensor names."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from quantd_server.errors import Finding, quoted
from quantd_server.methods.patterns import Pattern, compile_pattern

FIELD = "spec.method.gguf.tensor_types"


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """``type`` for every tensor in whose name ``pattern`` (a regular expression) is found."""

    pattern: str
    type: str


class Overrides:
    """Compiled patterns; remembers which were found."""

    def __init__(self, overrides: Sequence[Override]) -> None:
        self.findings: list[Finding] = []
        self._found: set[str] = set()
        self._compiled: list[tuple[Pattern, Override]] = []
        for override in overrides:
            try:
                self._compiled.append((compile_pattern(override.pattern), override))
            except ValueError as error:
                self.findings.append(
                    Finding(
                        field=FIELD,
                        reason="PATTERN_INVALID",
                        message=f"pattern {quoted(override.pattern)} is not usable: {error}",
                        remedy="write a regular expression that is found in tensor names, "
                        "e.g. ffn_down",
                    )
                )

    def __bool__(self) -> bool:
        return bool(self._compiled)

    def find(self, name: str) -> Override | None:
        """The first whose pattern is found in ``name``."""
        for pattern, override in self._compiled:
            if pattern.search(name):
                self._found.add(override.pattern)
                return override
        return None

    def unused(self) -> list[str]:
        """Patterns that :meth:`find` has never returned."""
        patterns = (override.pattern for _, override in self._compiled)
        return [pattern for pattern in patterns if pattern not in self._found]
