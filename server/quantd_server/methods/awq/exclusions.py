"""`modules_to_not_convert` of AWQ: which modules stay, and how all readers are told.

transformers takes an entry as the beginning or the end of a module's name, vLLM and AutoAWQ as any
part of it. Here it is whole parts at the beginning or at the end ("model.layers.0", "down_proj"),
so that "gate" is not "gate_proj".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from quantd_server.errors import Finding, Severity
from quantd_server.methods.linear_weights import finding


class Exclusions:
    """A caller's list; remembers which modules each entry covers."""

    def __init__(self, names: Sequence[str]) -> None:
        self._covered: dict[str, list[str]] = {name: [] for name in names}

    def match(self, module: str) -> str | None:
        """The first entry that covers ``module``."""
        for name, covered in self._covered.items():
            if module == name or module.startswith(f"{name}.") or module.endswith(f".{name}"):
                covered.append(module)
                return name
        return None

    def for_readers(self, quantized: Iterable[str]) -> list[str]:
        """The list to write: an entry that some reader would find in the name of a quantized
        module as well is replaced by the full names of the modules it covers.
        """
        modules = list(quantized)
        written: list[str] = []
        for name, covered in self._covered.items():
            ambiguous = any(name in module for module in modules)
            written += covered if ambiguous else [name]
        return written

    def findings(self, field: str) -> Iterator[Finding]:
        """What is wrong with the list, once ``match`` was asked for every module."""
        unused = [name for name, covered in self._covered.items() if not covered]
        if unused:
            yield finding(
                Severity.WARNING,
                "PATTERN_UNMATCHED",
                field,
                f"{len(unused)} entries name no linear layer of a decoder block",
                "correct the names, or leave them out",
                unused,
                kind="invalid",
            )
