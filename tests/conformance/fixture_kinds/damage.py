"""Checkpoints that are incomplete, damaged, or made to do harm."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.checkpoint.builders import (
    CONFIG,
    array,
    gguf_bytes,
    pair,
    safetensors_bytes,
    tensor,
    text,
    write_safetensors,
    write_sharded,
)
from tests.conformance.fixture_kinds import Maker

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
NAME = pair("general.architecture", "string", text("llama"))


def with_config(content: bytes | dict[str, Any]) -> Maker:
    """A small checkpoint with this config.json."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return small(lambda folder: (folder / "config.json").write_bytes(raw))


def small(change: Callable[[Path], object]) -> Maker:
    """A checkpoint of two tensors that is changed afterwards."""

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(CONFIG))
        write_safetensors(folder / "model.safetensors", ["a", "b"])
        change(folder)

    return make


def sharded(
    weight_map: dict[str, Any] | None = None, shards: dict[str, list[str]] | None = None
) -> Maker:
    """A checkpoint of two shards, whose index may say something else."""
    files = shards or {ONE: ["a", "b"], TWO: ["c"]}
    return lambda folder: write_sharded(folder, files, weight_map)


def without_weights(file: str) -> Maker:
    """A folder that has this file in place of safetensors."""

    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / file).write_bytes(b"x")

    return small(change)


def instead_of_weights(make: Callable[[Path], object]) -> Maker:
    """Something else where the weights should be."""

    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        make(folder / "model.safetensors")

    return small(change)


def unreadable(folder: Path) -> None:
    """Weights that only root can read."""
    (folder / "model.safetensors").chmod(0)


def locked(folder: Path) -> None:
    """A folder that only root can list."""
    folder.chmod(0o300)


def crowded(folder: Path) -> None:
    """More entries than a checkpoint has; links to one file are made fastest."""
    first = folder / "0"
    first.touch()
    for number in range(1, 50_001):
        os.symlink("0", folder / str(number))


def gguf(content: bytes) -> Maker:
    """A .gguf file."""
    return lambda path: path.write_bytes(content)


FIXTURES: Mapping[str, Maker] = {
    "config-broken": with_config(b'{"model_type": "llama",'),
    "config-list": with_config(b"[]"),
    "config-huge": with_config(b" " * ((4 << 20) + 1)),
    "config-without-type": with_config({}),
    "config-odd": with_config(CONFIG | {"quantization_config": "gptq"}),
    "config-missing": small(lambda folder: (folder / "config.json").unlink()),
    "adapter": without_weights("adapter_model.safetensors"),
    "pickles": without_weights("pytorch_model.bin"),
    "only-gguf": without_weights("model.gguf"),
    "no-weights": without_weights("README.md"),
    "pipe": instead_of_weights(os.mkfifo),
    "dangling": instead_of_weights(lambda path: path.symlink_to("nothing")),
    "leading-out": instead_of_weights(lambda path: path.symlink_to("../tiny/model.safetensors")),
    "unreadable": small(unreadable),
    "locked": small(locked),
    "crowded": small(crowded),
    "index-odd": sharded({"a": 1}),
    "index-leading-out": sharded({"a": "../tiny/model.safetensors"}),
    "index-missing": lambda folder: (sharded()(folder), (folder / INDEX).unlink()),
    "shard-missing": sharded({"a": "absent.safetensors"}),
    "tensor-missing": sharded({"a": ONE, "elsewhere": ONE}),
    "tensor-twice": sharded(None, {ONE: ["a", "b"], TWO: ["b"]}),
    "notes.txt": lambda path: path.write_text("x"),
    "complex": instead_of_weights(
        lambda path: path.write_bytes(safetensors_bytes(b'{"a":[' + b"[]," * 5_000_000 + b"1]}"))
    ),
    "elements.gguf": gguf(
        gguf_bytes([pair("a", "array", array("uint8", 4_000_001, bytes(4_000_001)))])
    ),
    "nameless.gguf": gguf(gguf_bytes(tensors=[tensor()], data=bytes(32))),
    "split.gguf": gguf(
        gguf_bytes([NAME, pair("split.count", "uint16", b"\2\0")], [tensor()], bytes(32))
    ),
    "weightless.gguf": gguf(gguf_bytes([NAME])),
}
