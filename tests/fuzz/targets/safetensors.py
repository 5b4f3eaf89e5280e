"""The reader of safetensors headers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping

from tests.checkpoint import safetensors_attacks
from tests.checkpoint.builders import entry, safetensors_bytes
from tests.fuzz.bounds import check_refusal
from tests.fuzz.json_mutation import mutate_text
from tests.fuzz.target import Target, folder

from quantd_server.checkpoint.dtypes import DTYPE_BITS, tensor_nbytes
from quantd_server.checkpoint.safetensors_header import SafetensorsHeader, read_header
from quantd_server.errors import CheckpointError

WORDS = ("__metadata__", "dtype", "shape", "data_offsets", "format", "pt", "b", *DTYPE_BITS)
MAX_DATA = 4096
"""Most bytes that a changed file has after its header."""


def run(data: bytes) -> None:
    path = folder() / "fuzzed.safetensors"
    path.write_bytes(data)
    try:
        header = read_header(path)
    except CheckpointError as error:
        check_refusal(error)
    else:
        _check(header, len(data))


def _check(header: SafetensorsHeader, size: int) -> None:
    """The tensors have all bytes after the header, each of them once."""
    position = header.data_start
    for name, tensor in header.tensors.items():
        assert name == tensor.name and name
        assert tensor.offset == position
        position += tensor.nbytes
    assert position == header.file_size == size
    json.dumps(header.metadata, ensure_ascii=False).encode()


def seeds() -> Mapping[str, bytes]:
    bits = {name: width for name, width in DTYPE_BITS.items() if width >= 8}
    every: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, width in bits.items():
        every[name] = entry(name, (2, 1), begin, begin + width // 4)
        begin += width // 4
    attacks = {name: content for name, (_, content) in safetensors_attacks.ATTACKS.items()}
    return {
        **{name: content for name, content in attacks.items() if len(content) < 10_000},
        "nothing": safetensors_bytes({}),
        "scalar": safetensors_bytes({"a": entry(shape=(), end=4)}, bytes(4)),
        "packed": safetensors_bytes({"a": entry("F4", (4, 2), 0, 4)}, bytes(4)),
        "every": safetensors_bytes(every, bytes(begin)),
    }


def mutate(
    data: bytes, max_size: int, rng: random.Random, mutate_bytes: Callable[[bytes, int], bytes]
) -> bytes:
    """The header changes and keeps a true length; the data is as long as the tensors, or nearly."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8 or rng.random() < 0.1:
        return mutate_bytes(data, max_size)
    raw = mutate_text(data[8 : 8 + length], max_size - 8, rng, mutate_bytes, WORDS)
    if rng.random() < 0.4:
        raw = _laid_out(raw, rng)
    size = min(_data_size(raw), MAX_DATA, max_size - 8 - len(raw))
    if rng.random() < 0.1:
        size = max(0, size + rng.choice((-1, 1)))
    return safetensors_bytes(raw, bytes(size))[:max_size]


def _laid_out(raw: bytes, rng: random.Random) -> bytes:
    """A header, perhaps with one more tensor, in which they lie one after the other."""
    try:
        header = json.loads(raw)
        if rng.random() < 0.3:
            header[f"t{rng.randrange(9)}"] = entry(rng.choice(WORDS), (rng.randrange(4), 2))
        begin = 0
        for value in header.values():
            if "dtype" in value and all(type(size) is int for size in value["shape"]):
                end = begin + tensor_nbytes(value["dtype"], value["shape"])
                value["data_offsets"] = [begin, end]
                begin = end
        return json.dumps(header).encode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return raw


def _data_size(raw: bytes) -> int:
    """Where the last tensor of a header says that it ends."""
    try:
        ends = [value["data_offsets"][1] for value in json.loads(raw).values() if "dtype" in value]
        return max((end for end in ends if type(end) is int and end > 0), default=0)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return 0


TARGET = Target(run=run, seeds=seeds, mutate=mutate)
