"""Small checkpoints, well-formed and not, written byte by byte."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

CONFIG = {"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 4}
GGUF_TYPES = [
    "uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "bool", "string", "array",
    "uint64", "int64", "float64",
]  # fmt: skip


def safetensors_bytes(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file with ``header`` (an object, or raw bytes) and, if given, a lying length."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(dtype: str = "F32", shape: Any = (2,), begin: Any = 0, end: Any = 8) -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": list(shape) if isinstance(shape, tuple) else shape,
        "data_offsets": [begin, end],
    }


def write_safetensors(path: Path, names: list[str]) -> None:
    """F32 tensors [2] of the given names."""
    header = {name: entry(begin=8 * place, end=8 * place + 8) for place, name in enumerate(names)}
    path.write_bytes(safetensors_bytes(header, bytes(8 * len(names))))


def write_sharded(
    directory: Path, shards: dict[str, list[str]], weight_map: dict[str, Any] | None = None
) -> None:
    """A sharded checkpoint; ``weight_map`` overrides the true one."""
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(CONFIG))
    for file, names in shards.items():
        write_safetensors(directory / file, names)
    true_map = {name: file for file, names in shards.items() for name in names}
    index = {"metadata": {}, "weight_map": true_map if weight_map is None else weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def text(value: str | bytes) -> bytes:
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str | bytes, kind: str, payload: bytes) -> bytes:
    """One metadata entry of a GGUF file; ``payload`` is the value as it is in the file."""
    return text(key) + struct.pack("<I", GGUF_TYPES.index(kind)) + payload


def array(element: str, count: int, payload: bytes) -> bytes:
    return struct.pack("<IQ", GGUF_TYPES.index(element), count) + payload


def tensor(
    name: str | bytes = "t", ne: tuple[int, ...] = (8,), kind: int = 0, at: int = 0
) -> bytes:
    """One tensor description of a GGUF file."""
    sizes = struct.pack(f"<{len(ne)}Q", *ne)
    return text(name) + struct.pack("<I", len(ne)) + sizes + struct.pack("<IQ", kind, at)


def gguf_bytes(
    pairs: list[bytes] | None = None,
    tensors: list[bytes] | None = None,
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    tensor_count: int | None = None,
    pair_count: int | None = None,
    alignment: int = 32,
) -> bytes:
    pairs, tensors = pairs or [], tensors or []
    head = magic + struct.pack(
        "<IQQ",
        version,
        len(tensors) if tensor_count is None else tensor_count,
        len(pairs) if pair_count is None else pair_count,
    )
    head += b"".join(pairs) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data
