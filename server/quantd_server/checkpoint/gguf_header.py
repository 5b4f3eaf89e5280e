"""Reading the header of a GGUF file: metadata and tensor places, never weights.

Format (ggml/docs/gguf.md), all little-endian here: magic ``GGUF``, u32 version, u64 tensor count,
u64 metadata count, the metadata (key, u32 type, value), the tensor descriptions (name, u32 number
of dimensions, u64 each, u32 type, u64 offset), padding to the alignment, then the data. A string
is a u64 length and UTF-8 bytes; an array a u32 element type, a u64 count and the elements, which
are no arrays themselves (ggml reads none, gguf_init_from_file_impl in ggml/src/gguf.cpp).
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from quantd_server.checkpoint.gguf_types import (
    GGML_TYPES_BY_ID,
    REMOVED_TYPE_IDS,
    VALUE_TYPES,
    GgmlType,
)
from quantd_server.checkpoint.source_file import open_source, read_exactly
from quantd_server.errors import CheckpointError, quoted

SUPPORTED_VERSIONS = (2, 3)
MAX_HEADER_BYTES = 256_000_000
"""Vocabularies are the bulk of a header; the largest published ones take about 20 MB."""
MAX_METADATA = 65_536
MAX_TENSORS = 250_000
MAX_ELEMENTS = 4_000_000
"""Array elements in all metadata together: bounds the objects that reading makes."""
MAX_KEY_BYTES = 65_535
MAX_TENSOR_NAME_BYTES = 1024
MAX_DIMENSIONS = 4
"""``GGML_MAX_DIMS``."""
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 65_536

_FORMATS = {
    "uint8": "B",
    "int8": "b",
    "uint16": "H",
    "int16": "h",
    "uint32": "I",
    "int32": "i",
    "float32": "f",
    "uint64": "Q",
    "int64": "q",
    "float64": "d",
}
_SMALLEST = {"string": 8, "bool": 1} | {
    name: struct.calcsize("<" + code) for name, code in _FORMATS.items()
}
"""Fewest bytes of one value: an array cannot have more elements than the rest of the file holds."""


class MetadataValue(msgspec.Struct, frozen=True, kw_only=True):
    """One metadata value with the type it was written as."""

    type: str
    """One of ``VALUE_TYPES`` but ``array``, or ``array:<element type>``."""
    value: Any
    """int, float, bool, str, or a list of these."""


class GgufTensorEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of a GGUF file and where its bytes are."""

    name: str
    ggml_type: str
    """Name in ``GGML_TYPES``, e.g. ``Q4_K``."""
    ne: tuple[int, ...]
    """Sizes in ggml's order: ne[0] is the row length."""
    shape: tuple[int, ...]
    """Sizes in row-major order, the reverse of ``ne``: a linear weight is [out, in]."""
    offset: int
    """From the start of the file, in bytes."""
    nbytes: int
    file: str
    """Name relative to the checkpoint folder."""

    @property
    def dtype(self) -> str:
        """The ggml type, under the name it has in entries of safetensors files."""
        return self.ggml_type


class GgufHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What the header of a GGUF file says."""

    version: int
    metadata: dict[str, MetadataValue]
    tensors: dict[str, GgufTensorEntry]
    """By name, in the order of the header."""
    alignment: int
    data_start: int
    file_size: int


def read_gguf_header(path: Path) -> GgufHeader:
    """The header of the GGUF file at ``path``.

    Raises CheckpointError with one of the reasons of ``open_source`` or: FILE_EMPTY, NOT_GGUF,
    GGUF_BIG_ENDIAN, GGUF_VERSION_UNSUPPORTED, HEADER_TRUNCATED, HEADER_TOO_LARGE,
    TOO_MANY_METADATA, TOO_MANY_TENSORS, TOO_MANY_ELEMENTS, ARRAY_TOO_LONG, ARRAY_NESTED,
    STRING_TOO_LONG, STRING_NOT_UTF8, VALUE_TYPE_UNKNOWN, BOOL_INVALID, DUPLICATE_KEY,
    DUPLICATE_TENSOR, ALIGNMENT_INVALID, SHAPE_INVALID, TENSOR_TYPE_UNKNOWN, TENSOR_TYPE_REMOVED,
    OFFSET_MISALIGNED, OFFSETS_OVERLAP, DATA_HOLE, DATA_TRUNCATED.
    """
    descriptor = open_source(path.parent, path.name)
    try:
        return _read(_Cursor(descriptor, path.name))
    finally:
        os.close(descriptor)


class _Cursor:
    """Reads forward through the header in large pieces and refuses to run over its end."""

    PIECE = 1 << 20

    def __init__(self, descriptor: int, file: str) -> None:
        self.file = file
        self.size = os.fstat(descriptor).st_size
        self.elements = 0
        self._descriptor = descriptor
        self._limit = min(self.size, MAX_HEADER_BYTES)
        self._piece = b""
        self._piece_start = 0
        self.position = 0

    @property
    def remaining(self) -> int:
        return self._limit - self.position

    def refuse(self, reason: str, fault: str) -> NoReturn:
        raise CheckpointError(
            reason=reason,
            message=f"{quoted(self.file)}: {fault}",
            remedy="download the file again, or convert the model again with a current llama.cpp",
        )

    def take(self, length: int) -> bytes:
        """The next ``length`` bytes; the caller has bounded ``length`` by ``remaining``."""
        if length > self.remaining:
            if self.position + length > self.size:
                self.refuse("HEADER_TRUNCATED", "the file ends inside its header")
            self.refuse("HEADER_TOO_LARGE", f"the header is longer than {MAX_HEADER_BYTES} bytes")
        begin = self.position - self._piece_start
        if begin + length > len(self._piece):
            wanted = min(max(length, self.PIECE), self.remaining)
            self._piece = read_exactly(self._descriptor, self.position, wanted, self.file)
            self._piece_start, begin = self.position, 0
        self.position += length
        return self._piece[begin : begin + length]

    def integer(self, nbytes: int) -> int:
        return int.from_bytes(self.take(nbytes), "little")

    def text(self, what: str, limit: int) -> str:
        length = self.integer(8)
        if length > min(limit, self.remaining):
            self.refuse(
                "STRING_TOO_LONG",
                f"{what} announces {length} bytes; {min(limit, self.remaining)} are possible",
            )
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            self.refuse("STRING_NOT_UTF8", f"{what} is not UTF-8")

    def value_type(self, what: str) -> str:
        number = self.integer(4)
        if number >= len(VALUE_TYPES):
            self.refuse("VALUE_TYPE_UNKNOWN", f"{what} has the value type {number}; known: 0..12")
        return VALUE_TYPES[number]


def _read(cursor: _Cursor) -> GgufHeader:
    version = _version(cursor)
    tensor_count, metadata_count = cursor.integer(8), cursor.integer(8)
    # A tensor description takes at least 8+4+4+8 bytes, a metadata entry 8+4+1.
    if tensor_count > min(MAX_TENSORS, cursor.remaining // 24):
        cursor.refuse("TOO_MANY_TENSORS", f"announces {tensor_count} tensors")
    if metadata_count > min(MAX_METADATA, cursor.remaining // 13):
        cursor.refuse("TOO_MANY_METADATA", f"announces {metadata_count} metadata entries")

    metadata: dict[str, MetadataValue] = {}
    for _ in range(metadata_count):
        key = cursor.text("a metadata key", MAX_KEY_BYTES)
        if key in metadata:
            cursor.refuse("DUPLICATE_KEY", f"the metadata key {quoted(key)} appears twice")
        what = f"metadata {quoted(key)}"
        metadata[key] = _value(cursor, what)
    alignment = _alignment(cursor, metadata.get("general.alignment"))

    described = [_description(cursor) for _ in range(tensor_count)]
    data_start = -(-cursor.position // alignment) * alignment
    tensors: dict[str, GgufTensorEntry] = {}
    for name, kind, ne, offset in described:
        if name in tensors:
            cursor.refuse("DUPLICATE_TENSOR", f"the tensor {quoted(name)} appears twice")
        if offset % alignment:
            cursor.refuse(
                "OFFSET_MISALIGNED", f"tensor {quoted(name)} is not aligned to {alignment} bytes"
            )
        tensors[name] = GgufTensorEntry(
            name=name,
            ggml_type=kind.name,
            ne=ne,
            shape=ne[::-1],
            offset=data_start + offset,
            nbytes=math.prod(ne) // kind.elements * kind.nbytes,
            file=cursor.file,
        )
    _check_coverage(cursor, tensors, data_start, alignment)
    return GgufHeader(
        version=version,
        metadata=metadata,
        tensors=tensors,
        alignment=alignment,
        data_start=data_start,
        file_size=cursor.size,
    )


def _version(cursor: _Cursor) -> int:
    if cursor.size == 0:
        cursor.refuse("FILE_EMPTY", "the file is empty")
    if cursor.size < 4 or cursor.take(4) != b"GGUF":
        cursor.refuse("NOT_GGUF", "the file does not begin with the GGUF magic")
    version = cursor.integer(4)
    if version & 0xFFFF == 0 and version:
        cursor.refuse("GGUF_BIG_ENDIAN", "the file is big-endian; only little-endian is read")
    if version not in SUPPORTED_VERSIONS:
        cursor.refuse("GGUF_VERSION_UNSUPPORTED", f"GGUF version {version}; read are 2 and 3")
    return version


def _value(cursor: _Cursor, what: str) -> MetadataValue:
    kind = cursor.value_type(what)
    if kind != "array":
        return MetadataValue(type=kind, value=_values(cursor, kind, 1, what)[0])
    element, count = cursor.value_type(what), cursor.integer(8)
    if element == "array":
        cursor.refuse("ARRAY_NESTED", f"{what} is an array of arrays")
    if count > cursor.remaining // _SMALLEST[element]:
        cursor.refuse("ARRAY_TOO_LONG", f"{what} announces {count} elements; the file is shorter")
    cursor.elements += count
    if cursor.elements > MAX_ELEMENTS:
        cursor.refuse("TOO_MANY_ELEMENTS", f"over {MAX_ELEMENTS} array elements in the metadata")
    return MetadataValue(type=f"array:{element}", value=_values(cursor, element, count, what))


def _values(cursor: _Cursor, kind: str, count: int, what: str) -> list[Any]:
    if kind == "string":
        return [cursor.text(what, cursor.remaining) for _ in range(count)]
    if kind == "bool":
        raw = cursor.take(count)
        if raw.strip(b"\0\1"):
            cursor.refuse("BOOL_INVALID", f"{what} holds a bool that is neither 0 nor 1")
        return [byte == 1 for byte in raw]
    code = _FORMATS[kind]
    return list(struct.unpack(f"<{count}{code}", cursor.take(count * _SMALLEST[kind])))


def _alignment(cursor: _Cursor, given: MetadataValue | None) -> int:
    if given is None:
        return DEFAULT_ALIGNMENT
    value = given.value
    if given.type != "uint32" or not 0 < value <= MAX_ALIGNMENT or value & (value - 1):
        cursor.refuse(
            "ALIGNMENT_INVALID",
            f"general.alignment must be a uint32 power of two up to {MAX_ALIGNMENT}",
        )
    return int(value)


def _description(cursor: _Cursor) -> tuple[str, GgmlType, tuple[int, ...], int]:
    name = cursor.text("a tensor name", MAX_TENSOR_NAME_BYTES)
    what = f"tensor {quoted(name)}"
    dimensions = cursor.integer(4)
    if dimensions > MAX_DIMENSIONS:
        cursor.refuse("SHAPE_INVALID", f"{what} has {dimensions} dimensions; at most 4")
    ne = tuple(cursor.integer(8) for _ in range(dimensions))
    number, offset = cursor.integer(4), cursor.integer(8)
    if number in REMOVED_TYPE_IDS:
        removed = REMOVED_TYPE_IDS[number]
        cursor.refuse("TENSOR_TYPE_REMOVED", f"{what} is {removed}, which ggml removed")
    kind = GGML_TYPES_BY_ID.get(number)
    if kind is None:
        cursor.refuse("TENSOR_TYPE_UNKNOWN", f"{what} has the unknown type {number}")
    # ggml keeps element counts in int64 (gguf_init_from_file_impl); so is every product bounded.
    if math.prod(size or 1 for size in ne) >= 2**63:
        cursor.refuse("SHAPE_INVALID", f"{what} has more elements than ggml can count")
    if (ne[0] if ne else 1) % kind.elements:
        cursor.refuse(
            "SHAPE_INVALID",
            f"{what} has rows of {ne[0] if ne else 1}; {kind.name} needs a multiple of "
            f"{kind.elements}",
        )
    return name, kind, ne, offset


def _check_coverage(
    cursor: _Cursor, tensors: dict[str, GgufTensorEntry], data_start: int, alignment: int
) -> None:
    """Refuses overlaps, holes beyond padding, and data that ends early (as ggml does)."""
    position = data_start
    for entry in sorted(tensors.values(), key=lambda entry: (entry.offset, entry.nbytes)):
        what = f"tensor {quoted(entry.name)}"
        if entry.offset < position:
            cursor.refuse("OFFSETS_OVERLAP", f"{what}: its bytes overlap those of another tensor")
        if entry.offset > position:
            cursor.refuse("DATA_HOLE", f"{what}: bytes before it belong to no tensor")
        end = entry.offset + entry.nbytes
        if end > cursor.size:
            cursor.refuse("DATA_TRUNCATED", f"{what}: the file ends inside it")
        position = -(-end // alignment) * alignment
