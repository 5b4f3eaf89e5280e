"""The bytes before the weights: a GGUF header, and where each tensor goes.

The header is written by ``gguf.GGUFWriter``. Planner and worker processes only (brings numpy).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import msgspec
import numpy as np

from quantd_server.checkpoint.gguf_header import MetadataValue
from quantd_server.checkpoint.gguf_types import GGML_TYPES
from quantd_server.methods.gguf.description import MetadataEntry, uint32

FILE_TYPE_KEY = "general.file_type"
QUANTIZATION_VERSION_KEY = "general.quantization_version"
ARCHITECTURE_KEY = "general.architecture"
ALIGNMENT_KEY = "general.alignment"
SPLIT_PREFIX = "split."
ALIGNMENT = gguf.GGUF_DEFAULT_ALIGNMENT


class TypedTensor(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor of the file to be written."""

    name: str
    shape: tuple[int, ...]
    """Row-major."""
    ggml_type: str


class HeaderLayout(msgspec.Struct, frozen=True, kw_only=True):
    """A GGUF file without its weights."""

    header: bytes
    """From the start of the file to the first tensor, padding included."""
    places: dict[str, tuple[int, int]]
    """Tensor name to (offset from the start of the file, bytes); gaps between are zero bytes."""
    file_size: int


def tensor_nbytes(shape: Sequence[int], ggml_type: str) -> int:
    """Bytes of a tensor. Raises ValueError if its rows are no multiple of the type's block."""
    kind = GGML_TYPES[ggml_type]
    row = shape[-1] if shape else 1
    if row % kind.elements:
        raise ValueError(f"rows of {row} are no multiple of {kind.elements}, a {ggml_type} block")
    count = 1
    for size in shape:
        count *= size
    return count // kind.elements * kind.nbytes


def build_header(
    gguf_arch: str,
    metadata: Iterable[MetadataEntry],
    tensors: Sequence[TypedTensor],
    file_type: int,
) -> HeaderLayout:
    """The exact layout of the file: header bytes, the place of each tensor, the size.

    ``general.architecture``, ``general.file_type`` and ``general.quantization_version`` are set
    here, whatever ``metadata`` says of them. Data starts at a multiple of 32 bytes and so does
    each tensor. Raises ValueError for rows that do not fit their type.
    """
    writer = gguf.GGUFWriter(None, gguf_arch)
    ours = {ARCHITECTURE_KEY, FILE_TYPE_KEY, QUANTIZATION_VERSION_KEY, ALIGNMENT_KEY}
    for entry in metadata:
        if entry.key not in ours:
            _add(writer, entry)
    _add(writer, uint32(FILE_TYPE_KEY, file_type))
    _add(writer, uint32(QUANTIZATION_VERSION_KEY, gguf.GGML_QUANT_VERSION))
    sizes = {tensor.name: tensor_nbytes(tensor.shape, tensor.ggml_type) for tensor in tensors}
    for tensor in tensors:
        writer.add_tensor_info(
            tensor.name,
            tensor.shape,
            np.dtype(np.float32),
            sizes[tensor.name],
            raw_dtype=gguf.GGMLQuantizationType[tensor.ggml_type],
        )
    header = _header_bytes(writer)
    header += bytes(-len(header) % ALIGNMENT)
    places: dict[str, tuple[int, int]] = {}
    position = len(header)
    for tensor in tensors:
        places[tensor.name] = (position, sizes[tensor.name])
        position += gguf.GGUFWriter.ggml_pad(sizes[tensor.name], ALIGNMENT)
    return HeaderLayout(header=header, places=places, file_size=position)


def metadata_of_source(metadata: Mapping[str, MetadataValue]) -> list[MetadataEntry]:
    """The metadata of a .gguf source for the quantized file, in its order.

    Keys that describe the source's split into several files are dropped, as llama.cpp does, and
    empty arrays, which GGUFWriter cannot write and no reader needs.
    """
    return [
        MetadataEntry(key=key, type=value.type, value=value.value)
        for key, value in metadata.items()
        if not key.startswith(SPLIT_PREFIX)
        and not (value.type.startswith("array") and not value.value)
    ]


def _add(writer: gguf.GGUFWriter, entry: MetadataEntry) -> None:
    kind, _, element = entry.type.partition(":")
    writer.add_key_value(
        entry.key,
        _value(kind, element, entry.value),
        gguf.GGUFValueType[kind.upper()],
        gguf.GGUFValueType[element.upper()] if element else None,
    )


def _value(kind: str, element: str, value: Any) -> Any:
    if element == "array":
        raise ValueError("an array of arrays cannot be written to a GGUF header")
    if kind == "array" and not isinstance(value, list):
        raise ValueError(f"an array value is a list, not {type(value).__name__}")
    return value


def _header_bytes(writer: gguf.GGUFWriter) -> bytes:
    """GGUFWriter writes to a path only, so the header takes a way through a temporary file."""
    with tempfile.TemporaryDirectory(prefix="quantd-gguf-header-") as folder:
        path = Path(folder) / "header.gguf"
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        return path.read_bytes()
