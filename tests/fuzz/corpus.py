"""The targets, and the inputs that each of them begins with: seeds and the committed corpus."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from pathlib import Path

from tests.fuzz.target import Target

CORPUS = Path(__file__).resolve().parent / "corpus"
TARGETS = (
    "safetensors",
    "checkpoint_folder",
    "gguf",
    "imatrix",
    "text_file",
    "config_json",
    "quantization_service",
    "job_service",
)
"""Modules of ``targets``."""

FOUND = "found-"
"""What the names of inputs begin with that a fuzzer found for their coverage; all others were
committed for what they once broke, and stay."""


def target_named(name: str) -> Target:
    """The target of the module ``targets/<name>.py``."""
    target: Target = importlib.import_module(f"tests.fuzz.targets.{name}").TARGET
    return target


def inputs(name: str) -> Mapping[str, bytes]:
    """What a fuzzer begins with, by name: the target's seeds, and what is committed."""
    seeds = {f"seed-{place}": content for place, content in target_named(name).seeds().items()}
    return {**seeds, **committed(name)}


def committed(name: str) -> Mapping[str, bytes]:
    """The committed corpus of a target by name of the file."""
    return {path.name: path.read_bytes() for path in sorted((CORPUS / name).glob("*"))}


def store(name: str, contents: list[bytes]) -> int:
    """Replace the found inputs of the committed corpus; how many there are now."""
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(f"{FOUND}*"):
        path.unlink()
    for content in set(contents) - set(committed(name).values()):
        (folder / f"{FOUND}{hashlib.sha256(content).hexdigest()[:16]}").write_bytes(content)
    return len(committed(name))
