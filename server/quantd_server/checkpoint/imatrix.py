"""Importance matrices, as llama-imatrix writes them: which columns of a weight matter most.

For each weight the mean squared activation that each of its input columns met on some text. Two
forms exist: a .gguf file with tensors ``<name>.in_sum2`` and ``<name>.counts`` (since 2025), and
the older binary form (tools/imatrix of llama.cpp): a count of entries, then for each the length
of its name, the name, the number of calls, the number of values and the values, all little-endian
32-bit.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from pathlib import Path
from typing import NoReturn

from quantd_server.checkpoint.gguf_header import GgufHeader, GgufTensorEntry, read_gguf_header
from quantd_server.checkpoint.source_file import open_source, read_exactly
from quantd_server.errors import CheckpointError, QuantdError, quoted

FIELD = "spec.method.gguf.imatrix_uri"
MAX_BYTES = 1 << 30
MAX_ENTRIES = 250_000
MAX_NAME_BYTES = 1024
SUMS, COUNTS = ".in_sum2", ".counts"


def read_importance_matrix(path: Path) -> dict[str, array[float]]:
    """float32 values by name of weight in llama.cpp's spelling ("blk.0.attn_q.weight").

    A weight with several matrices (experts) has their values one after the other; a matrix that
    met no activations has ones. Raises QuantdError IMATRIX_INVALID.
    """
    try:
        descriptor = open_source(path.parent, path.name)
    except CheckpointError as error:
        _refuse(path, f"cannot be read: {error.message}")
    try:
        size = os.fstat(descriptor).st_size
        if size > MAX_BYTES:
            _refuse(path, f"has {size} bytes; at most {MAX_BYTES} are read")
        if size < 8:
            _refuse(path, "is too short to be one")
        magic = read_exactly(descriptor, 0, 4, path.name)
        entries = (
            _read_gguf(path, read_gguf_header(path), descriptor)
            if magic == b"GGUF"
            else _read_binary(path, read_exactly(descriptor, 0, size, path.name))
        )
    except CheckpointError as error:
        _refuse(path, f"is damaged: {error.message}")
    finally:
        os.close(descriptor)
    for name, values in entries.items():
        # NaN fails the comparison too.
        if not all(0.0 <= value < float("inf") for value in values):
            _refuse(path, f"has values for {quoted(name)} that are negative or not finite")
    if not entries:
        _refuse(path, "has no entries")
    return entries


def _read_gguf(path: Path, header: GgufHeader, descriptor: int) -> dict[str, array[float]]:
    def values_of(entry: GgufTensorEntry) -> array[float]:
        if entry.ggml_type != "F32":
            _refuse(path, f"holds {quoted(entry.name)} as {entry.ggml_type}, not F32")
        return _floats(read_exactly(descriptor, entry.offset, entry.nbytes, path.name))

    entries: dict[str, array[float]] = {}
    for name, entry in header.tensors.items():
        if not name.endswith(SUMS):
            continue
        weight = name.removesuffix(SUMS)
        counts_entry = header.tensors.get(weight + COUNTS)
        if counts_entry is None:
            _refuse(path, f"has no counts for {quoted(weight)}")
        sums, counts = values_of(entry), values_of(counts_entry)
        if not counts or len(sums) % len(counts):
            _refuse(path, f"has {len(counts)} counts for {len(sums)} sums of {quoted(weight)}")
        entries[weight] = _means(sums, counts)
    return entries


def _read_binary(path: Path, data: bytes) -> dict[str, array[float]]:
    position = 0

    def integer(what: str, limit: int) -> int:
        nonlocal position
        if position + 4 > len(data):
            _refuse(path, f"ends before {what}")
        (value,) = struct.unpack_from("<i", data, position)
        position += 4
        if not 0 <= value <= limit:
            _refuse(path, f"is no importance matrix: {what} is {value}")
        return int(value)

    def piece(what: str, length: int) -> bytes:
        nonlocal position
        if position + length > len(data):
            _refuse(path, f"ends within {what}")
        position += length
        return data[position - length : position]

    entries: dict[str, array[float]] = {}
    for _ in range(integer("the number of entries", MAX_ENTRIES)):
        length = integer("the length of a name", MAX_NAME_BYTES)
        name = piece("a name", length).decode("utf-8", "replace")
        calls = integer("a number of calls", 2**31 - 1)
        count = integer("a number of values", MAX_BYTES // 4)
        sums = _floats(piece(f"the values of {quoted(name)}", 4 * count))
        entries[name] = _means(sums, array("f", [float(calls)]))
    return entries


def _means(sums: array[float], counts: array[float]) -> array[float]:
    """Each sum divided by the count of its matrix; ones where that is 0."""
    width = len(sums) // len(counts)
    means = array("f")
    for matrix, count in enumerate(counts):
        part = sums[matrix * width : (matrix + 1) * width]
        means.extend((value / count for value in part) if count > 0 else [1.0] * width)
    return means


def _floats(raw: bytes) -> array[float]:
    values = array("f")
    values.frombytes(raw[: len(raw) // 4 * 4])
    if sys.byteorder == "big":
        values.byteswap()
    return values


def _refuse(path: Path, fault: str) -> NoReturn:
    raise QuantdError(
        reason="IMATRIX_INVALID",
        field=FIELD,
        kind="precondition",
        message=f"{quoted(path.name)} {fault}",
        remedy="make it again with llama-imatrix",
    )
