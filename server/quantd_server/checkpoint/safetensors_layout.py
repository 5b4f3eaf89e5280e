"""Planning safetensors files before any byte of them is computed: names, headers, places.

Sizes follow from dtypes and shapes alone, so every output file can be reserved first and then
filled in any order. Naming and index are those of ``save_pretrained`` (huggingface_hub,
``split_state_dict_into_shards_factory``).

A tensor of variable length does not change that: such tensors come first, and what they turn out
to be shorter, the header before them is longer, by spaces at its end. Everything behind them stays
where it was planned, and the file has the planned size.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from quantd_server.checkpoint.dtypes import DTYPE_BITS, tensor_nbytes

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


class OutputTensor(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor to be written."""

    name: str
    dtype: str
    """safetensors name, e.g. ``U8``."""
    shape: tuple[int, ...]
    group: str = ""
    """Tensors of the same non-empty group (a packed weight and its scales) share a file."""
    variable_length: bool = False
    """A one-dimensional U8 tensor whose shape is only an upper bound: it goes to the front of its
    file, where ``seal`` gives it the length it turns out to have."""


class PlacedTensor(msgspec.Struct, frozen=True, kw_only=True):
    """Where a tensor's bytes go."""

    offset: int
    """From the start of the file, in bytes; a multiple of the element size."""
    nbytes: int


class PlannedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One safetensors file: ``header`` at offset 0, the tensors at their places after it."""

    name: str
    header: bytes
    """With its leading length, padded so that it ends, with the tensors of variable length behind
    it, at a multiple of 8 bytes."""
    size: int
    entries: dict[str, PlacedTensor]


class SafetensorsLayout(msgspec.Struct, frozen=True, kw_only=True):
    """All files of one checkpoint."""

    files: tuple[PlannedFile, ...]
    index: str | None
    """Text of ``model.safetensors.index.json``; None for a single file."""
    total_size: int
    """Bytes of all tensors; an upper bound with tensors of variable length."""

    def locate(self, name: str) -> tuple[str, PlacedTensor]:
        """The file and the place of a tensor. Raises KeyError."""
        for file in self.files:
            if name in file.entries:
                return file.name, file.entries[name]
        raise KeyError(name)


def plan_files(tensors: Sequence[OutputTensor], max_shard_size: int) -> SafetensorsLayout:
    """Distributes ``tensors``, in their order, over files of at most ``max_shard_size`` bytes.

    A group larger than that gets a file of its own. Raises ValueError for duplicate names, a
    reserved name, an unknown dtype or a ``max_shard_size`` below 1.
    """
    if max_shard_size < 1:
        raise ValueError(f"max_shard_size must be at least 1 byte, got {max_shard_size}")
    names = [tensor.name for tensor in tensors]
    if len(set(names)) != len(names) or "__metadata__" in names:
        raise ValueError("tensor names must be unique and not '__metadata__'")
    shards = _shards(tensors, max_shard_size)
    count = len(shards)
    files = tuple(
        _plan_file(
            SINGLE_FILE if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors", shard
        )
        for number, shard in enumerate(shards, start=1)
    )
    total_size = sum(map(_nbytes, tensors))
    return SafetensorsLayout(
        files=files, index=None if count == 1 else _index(files, total_size), total_size=total_size
    )


def _shards(tensors: Sequence[OutputTensor], max_shard_size: int) -> list[list[OutputTensor]]:
    groups: dict[tuple[str, str], list[OutputTensor]] = {}
    for tensor in tensors:
        # A lone tensor is a group of its own, apart from any group that has its name.
        key = ("group", tensor.group) if tensor.group else ("tensor", tensor.name)
        groups.setdefault(key, []).append(tensor)
    shards: list[list[OutputTensor]] = [[]]
    filled = 0
    for group in groups.values():
        nbytes = sum(map(_nbytes, group))
        if shards[-1] and filled + nbytes > max_shard_size:
            shards.append([])
            filled = 0
        shards[-1].extend(group)
        filled += nbytes
    return shards


def _plan_file(name: str, tensors: list[OutputTensor]) -> PlannedFile:
    # Wide dtypes first: they start at a multiple of 8, so that every tensor is aligned to its
    # element size in the file, which readers that view the mapped file need.
    ordered = sorted(
        tensors,
        key=lambda tensor: (not tensor.variable_length, -DTYPE_BITS[tensor.dtype], tensor.name),
    )
    text = _header_text(ordered)
    variable = sum(_nbytes(tensor) for tensor in ordered if tensor.variable_length)
    header = _framed(text, len(text) + -(len(text) + variable) % 8)
    entries, offset = {}, len(header)
    for tensor in ordered:
        entries[tensor.name] = PlacedTensor(offset=offset, nbytes=_nbytes(tensor))
        offset += _nbytes(tensor)
    return PlannedFile(name=name, header=header, size=offset, entries=entries)


def seal(header: bytes, lengths: Mapping[str, int]) -> tuple[bytes, dict[str, int]]:
    """Gives the tensors of variable length, all of which ``lengths`` names, their final lengths.

    Returns the header and their places from the start of the file; they end where they were
    planned to end. Raises ValueError when a length is more than planned.
    """
    entries = json.loads(header[8:])
    del entries["__metadata__"]
    for name, length in lengths.items():
        if length > entries[name]["shape"][0]:
            raise ValueError(f"{name} has {length} bytes; at most {entries[name]['shape'][0]} fit")
    tensors = [
        OutputTensor(
            name=name,
            dtype=entry["dtype"],
            shape=(lengths[name],) if name in lengths else tuple(entry["shape"]),
        )
        for name, entry in entries.items()  # in file order
    ]
    end = len(header) + sum(entries[name]["shape"][0] for name in lengths)
    offset = end - sum(lengths.values())
    # No number in it has grown, so it still fits.
    sealed = _framed(_header_text(tensors), offset - 8)
    places = {}
    for tensor in tensors[: len(lengths)]:
        places[tensor.name] = offset
        offset += lengths[tensor.name]
    return sealed, places


def seal_index(index: str, shorter: int) -> str:
    """The index when the tensors of variable length take ``shorter`` bytes less than planned."""
    content = json.loads(index)
    content["metadata"]["total_size"] -= shorter
    return _index_text(content)


def _header_text(tensors: Iterable[OutputTensor]) -> bytes:
    """JSON that describes ``tensors`` as lying one behind the other."""
    description: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for tensor in tensors:
        end = begin + _nbytes(tensor)
        description[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    return json.dumps(description, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def _framed(text: bytes, length: int) -> bytes:
    """A whole header: its length, the text, and spaces."""
    return length.to_bytes(8, "little") + text.ljust(length)


def _index(files: tuple[PlannedFile, ...], total_size: int) -> str:
    weight_map = {name: file.name for file in files for name in file.entries}
    return _index_text(
        {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
    )


def _index_text(content: Mapping[str, object]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _nbytes(tensor: OutputTensor) -> int:
    return tensor_nbytes(tensor.dtype, tensor.shape)
