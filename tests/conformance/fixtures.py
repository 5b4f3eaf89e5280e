"""What vectors find below ${sources}: checkpoints and files, good and bad, made when needed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from tests.checkpoint import gguf_attacks, safetensors_attacks
from tests.checkpoint.builders import CONFIG
from tests.conformance.fixture_kinds import Maker, calibration, checkpoints, conversion, damage
from tests.conformance.vector import Vector


def _with_weights(content: bytes) -> Maker:
    """A folder whose one weight file holds this."""

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(CONFIG))
        (folder / "model.safetensors").write_bytes(content)

    return make


FIXTURES: Mapping[str, Maker] = {
    **checkpoints.FIXTURES,
    **damage.FIXTURES,
    **conversion.FIXTURES,
    **calibration.FIXTURES,
    **{
        f"safetensors-{name}": _with_weights(content)
        for name, (_, content) in safetensors_attacks.ATTACKS.items()
    },
    **{
        f"{name}.gguf": (lambda path, content=content: path.write_bytes(content))
        for name, (_, content) in gguf_attacks.ATTACKS.items()
    },
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
