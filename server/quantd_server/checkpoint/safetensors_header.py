"""Reading the header of a safetensors file: names, dtypes, shapes and places, never weights.

Format: 8 bytes little-endian header length N, N bytes of a JSON object, then the data. Each entry
is ``{"dtype": ..., "shape": [...], "data_offsets": [begin, end]}`` with offsets from the end of
the header; the data must be covered without holes or overlaps
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from quantd_server.checkpoint.dtypes import DTYPE_BITS, tensor_nbytes
from quantd_server.checkpoint.source_file import (
    MAX_JSON_TOKENS,
    count_json_tokens,
    open_source,
    read_exactly,
)
from quantd_server.errors import CheckpointError, quoted

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library (``MAX_HEADER_SIZE``)."""

MAX_TENSORS = 250_000
"""Tensors of one file. The largest published mixtures of experts hold about 100,000 in all."""

MAX_DIMENSIONS = 16
MAX_DIMENSION = 2**48


class TensorEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of a checkpoint and where its bytes are."""

    name: str
    dtype: str
    """safetensors name, e.g. ``BF16``."""
    shape: tuple[int, ...]
    """Row-major; a linear weight is [out, in]."""
    offset: int
    """From the start of the file, in bytes."""
    nbytes: int
    file: str
    """Name relative to the checkpoint folder."""


class SafetensorsHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What the header of one file says."""

    tensors: dict[str, TensorEntry]
    """By name, in the order of their bytes in the file."""
    metadata: dict[str, str]
    data_start: int
    file_size: int


def read_header(path: Path) -> SafetensorsHeader:
    """The header of the safetensors file at ``path``.

    Raises CheckpointError with one of the reasons of ``open_source`` or: FILE_EMPTY,
    HEADER_TRUNCATED, HEADER_TOO_LARGE, HEADER_TOO_COMPLEX, HEADER_NOT_UTF8, HEADER_INVALID_JSON,
    HEADER_NOT_AN_OBJECT, DUPLICATE_KEY, METADATA_INVALID, TOO_MANY_TENSORS, ENTRY_INVALID,
    DTYPE_UNKNOWN, SHAPE_INVALID, OFFSETS_INVALID, SIZE_MISMATCH, OFFSETS_OVERLAP, DATA_HOLE,
    DATA_TRUNCATED, DATA_TRAILING.
    """
    name = path.name
    descriptor = open_source(path.parent, name)
    try:
        file_size = os.fstat(descriptor).st_size
        length = _header_length(descriptor, file_size, name)
        raw = read_exactly(descriptor, 8, length, name)
    finally:
        os.close(descriptor)
    entries = _parse_object(raw, name)
    metadata = _metadata(entries.pop("__metadata__", {}), name)
    if len(entries) > MAX_TENSORS:
        _refuse(name, "TOO_MANY_TENSORS", f"has {len(entries)} tensors; at most {MAX_TENSORS}")
    data_start = 8 + length
    tensors = [_entry(key, value, data_start, name) for key, value in entries.items()]
    tensors.sort(key=lambda entry: (entry.offset, entry.nbytes))
    _check_coverage(tensors, data_start, file_size, name)
    return SafetensorsHeader(
        tensors={entry.name: entry for entry in tensors},
        metadata=metadata,
        data_start=data_start,
        file_size=file_size,
    )


def _header_length(descriptor: int, file_size: int, file: str) -> int:
    if file_size == 0:
        _refuse(file, "FILE_EMPTY", "is empty")
    if file_size < 8:
        _refuse(file, "HEADER_TRUNCATED", f"has {file_size} bytes; a header needs at least 8")
    length = int.from_bytes(read_exactly(descriptor, 0, 8, file), "little")
    if length > MAX_HEADER_BYTES:
        _refuse(
            file,
            "HEADER_TOO_LARGE",
            f"announces a header of {length} bytes; at most {MAX_HEADER_BYTES} are allowed",
        )
    if length > file_size - 8:
        _refuse(
            file,
            "HEADER_TRUNCATED",
            f"announces a header of {length} bytes but has only {file_size - 8} after its length",
        )
    return length


def _parse_object(raw: bytes, file: str) -> dict[str, Any]:
    if count_json_tokens(raw) > MAX_JSON_TOKENS:
        _refuse(file, "HEADER_TOO_COMPLEX", f"has a header of over {MAX_JSON_TOKENS} JSON tokens")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        _refuse(file, "HEADER_NOT_UTF8", f"has a header that is not UTF-8 at byte {error.start}")
    if not text.startswith("{"):
        _refuse(file, "HEADER_NOT_AN_OBJECT", "has a header that is not a JSON object")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
            _refuse(file, "DUPLICATE_KEY", f"has the key {quoted(twice)} twice in its header")
        return value

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        where = f"{error.msg} at byte {error.pos}"
        _refuse(file, "HEADER_INVALID_JSON", f"has a header that is not valid JSON: {where}")
    except (ValueError, RecursionError):
        # ValueError: an integer of thousands of digits.
        _refuse(file, "HEADER_INVALID_JSON", "has a header with a number or nesting without bounds")
    assert isinstance(value, dict)
    return value


def _metadata(value: Any, file: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        _refuse(file, "METADATA_INVALID", "has a __metadata__ that is not a map of text to text")
    if not all(_is_encodable(key) and _is_encodable(text) for key, text in value.items()):
        _refuse(file, "METADATA_INVALID", "has text in __metadata__ that is not Unicode")
    return value


def _entry(name: str, value: Any, data_start: int, file: str) -> TensorEntry:
    where = f"tensor {quoted(name)}"
    if not name or not _is_encodable(name):
        _refuse(file, "ENTRY_INVALID", f"has a tensor of the name {quoted(name)}")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        _refuse(file, "ENTRY_INVALID", f"{where}: needs exactly dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str):
        _refuse(file, "ENTRY_INVALID", f"{where}: dtype must be text")
    if dtype not in DTYPE_BITS:
        known = ", ".join(DTYPE_BITS)
        _refuse(file, "DTYPE_UNKNOWN", f"{where}: dtype {quoted(dtype)}; known: {known}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        _refuse(file, "SHAPE_INVALID", f"{where}: shape must be at most {MAX_DIMENSIONS} sizes")
    if not all(_is_size(size) and size <= MAX_DIMENSION for size in shape):
        _refuse(file, "SHAPE_INVALID", f"{where}: sizes must be integers 0..{MAX_DIMENSION}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        _refuse(file, "OFFSETS_INVALID", f"{where}: data_offsets must be two integers from 0")
    begin, end = offsets
    if begin > end:
        _refuse(file, "OFFSETS_INVALID", f"{where}: data_offsets run backwards")
    try:
        nbytes = tensor_nbytes(dtype, shape)
    except ValueError as error:
        _refuse(file, "SIZE_MISMATCH", f"{where}: {error}")
    if nbytes != end - begin:
        _refuse(
            file,
            "SIZE_MISMATCH",
            f"{where}: {dtype} {shape} needs another number of bytes than data_offsets say",
        )
    return TensorEntry(
        name=name,
        dtype=dtype,
        shape=tuple(shape),
        offset=data_start + begin,
        nbytes=nbytes,
        file=file,
    )


def _check_coverage(tensors: list[TensorEntry], data_start: int, file_size: int, file: str) -> None:
    """Refuses overlaps, holes and a data part of another length than the tensors'."""
    position = data_start
    for entry in tensors:
        where = f"tensor {quoted(entry.name)}"
        if entry.offset < position:
            _refuse(file, "OFFSETS_OVERLAP", f"{where}: its bytes overlap those of another tensor")
        if entry.offset > position:
            _refuse(file, "DATA_HOLE", f"{where}: bytes before it belong to no tensor")
        position += entry.nbytes
    if position > file_size:
        missing = position - file_size
        _refuse(file, "DATA_TRUNCATED", f"is cut short: {missing} bytes of its tensors are missing")
    if position < file_size:
        _refuse(file, "DATA_TRAILING", f"has {file_size - position} bytes that belong to no tensor")


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_encodable(text: str) -> bool:
    """False for lone surrogates, which JSON can spell but no file or message can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _refuse(file: str, reason: str, fault: str) -> NoReturn:
    raise CheckpointError(
        reason=reason,
        message=f"{quoted(file)} {fault}"
        if not fault.startswith("tensor ")
        else f"{quoted(file)}, {fault}",
        remedy=f"download {quoted(file)} again, or export it again with the safetensors library",
    )
