"""The README as a sequence of blocks and tables."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
README = REPOSITORY / "README.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    line: int
    language: str
    text: str

    @property
    def program(self) -> str:
        """The first word of a shell block."""
        return self.text.split()[0]


def blocks() -> list[Block]:
    """All fenced blocks in order."""
    text = README.read_text(encoding="utf-8")
    return [
        Block(text.count("\n", 0, found.start()) + 1, found[1], found[2])
        for found in BLOCK.finditer(text)
    ]


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a shell block that uses no shell syntax but quotes."""
    found = []
    pending = ""
    for line in block.text.splitlines():
        pending += line
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:  # a quote is still open
            pending += "\n"
            continue
        found.append(words)
        pending = ""
    assert not pending, f"README.md:{block.line}: the last command is not complete"
    return [words for words in found if words]


def table(heading: str) -> list[list[str]]:
    """Rows of the first table below a heading, without its head."""
    lines = README.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return rows
