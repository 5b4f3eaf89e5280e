"""What vectors find below ${sources}: checkpoints and files, good and bad, made when needed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from tests import tiny_models
from tests.conformance.vector import Vector

Maker = Callable[[Path], object]


def tiny(folder: Path) -> None:
    """Two blocks of width 64 of a Llama in bfloat16, with tied embeddings: 20 tensors."""
    tiny_models.write(folder)


def slow(folder: Path) -> None:
    """A Llama that takes seconds as IQ4_XS."""
    tiny_models.write_slow(folder)


FIXTURES: Mapping[str, Maker] = {
    "tiny": tiny,
    "slow": slow,
}


def names_in(vector: Vector) -> set[str]:
    """The fixtures that a vector mentions."""
    text = json.dumps(vector.steps)
    return set(re.findall(r"\$\{sources\}/([\w.-]+)", text)) & FIXTURES.keys()


def provide(vector: Vector, sources: Path) -> None:
    """Makes what a vector needs and is not there."""
    for name in names_in(vector):
        if not (sources / name).exists():
            FIXTURES[name](sources / name)
