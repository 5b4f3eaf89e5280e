"""Changes of a GGUF file that leave its lengths and counts true, mostly."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.checkpoint.builders import array, gguf_bytes, pair, tensor, text

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9
NUMBERS = (0, 1, 2, 3, 8, 31, 32, 33, 255, 256, 2**16, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1)
KEYS = (
    "general.architecture", "general.alignment", "general.file_type", "general.name", "split.count",
    "tokenizer.ggml.tokens", "tokenizer.ggml.model", "llama.block_count", "llama.context_length",
    "llama.embedding_length", "llama.attention.head_count", "llama.attention.head_count_kv",
    "llama.attention.key_length", "llama.vocab_size",
)  # fmt: skip
NAMES = (
    "t", "output.weight", "token_embd.weight", "blk.0.attn_q.weight", "blk.0.ffn_up.in_sum2",
    "blk.0.ffn_up.counts",
)  # fmt: skip
MAX_DATA = 4096


class _UnreadableError(Exception):
    pass


@dataclass
class _File:
    """A file taken apart, as far as it can be."""

    version: int = 3
    pairs: list[bytes] = field(default_factory=list)
    tensors: list[tuple[bytes, tuple[int, ...], int, int]] = field(default_factory=list)
    """Name, ne, type and offset."""
    data: bytes = b""


def mutate_gguf(
    data: bytes, max_size: int, rng: random.Random, mutate_bytes: Callable[[bytes, int], bytes]
) -> bytes:
    """A changed file."""
    try:
        file = _parse(data)
    except (_UnreadableError, struct.error):
        return mutate_bytes(data, max_size)
    if rng.random() < 0.1:
        return mutate_bytes(data, max_size)
    for _ in range(rng.choice((1, 1, 2, 3))):
        _change(file, rng, mutate_bytes)
    if rng.random() < 0.7:
        _lay_out(file)
    counts = (None, None)
    if rng.random() < 0.05:
        counts = (rng.choice(NUMBERS), rng.choice(NUMBERS))
    changed = gguf_bytes(
        file.pairs,
        [tensor(*parts) for parts in file.tensors],
        file.data,
        version=file.version,
        tensor_count=counts[0],
        pair_count=counts[1],
    )
    return changed if len(changed) <= max_size else mutate_bytes(data, max_size)


def _change(file: _File, rng: random.Random, mutate_bytes: Callable[[bytes, int], bytes]) -> None:
    match rng.randrange(8):
        case 0:
            file.version = rng.choice((2, 3, 3, 3, 1, 2**16))
        case 1 | 2:
            file.pairs.insert(rng.randint(0, len(file.pairs)), _new_pair(rng))
        case 3 if file.pairs:
            at = rng.randrange(len(file.pairs))
            if rng.random() < 0.5:
                del file.pairs[at]
            else:
                file.pairs[at] = mutate_bytes(file.pairs[at], len(file.pairs[at]) + 16)
        case 4 if file.tensors:
            at = rng.randrange(len(file.tensors))
            if rng.random() < 0.4:
                del file.tensors[at]
            else:
                file.tensors.insert(at, file.tensors[at])
        case 5 if file.tensors:
            at = rng.randrange(len(file.tensors))
            file.tensors[at] = _changed_tensor(file.tensors[at], rng)
        case 6:
            file.data = mutate_bytes(file.data or bytes(32), MAX_DATA)
        case _:
            name = rng.choice(NAMES).encode()
            ne = tuple(rng.choice((1, 2, 32, 256)) for _ in range(rng.randrange(5)))
            file.tensors.append((name, ne, rng.choice((0, 0, 1, 2, 8, 12, 30, 39)), 0))


def _changed_tensor(
    parts: tuple[bytes, tuple[int, ...], int, int], rng: random.Random
) -> tuple[bytes, tuple[int, ...], int, int]:
    name, ne, kind, at = parts
    match rng.randrange(4):
        case 0:
            return rng.choice(NAMES).encode() + rng.choice((b"", b"\xff", b"x")), ne, kind, at
        case 1 if ne:
            place = rng.randrange(len(ne))
            return name, (*ne[:place], rng.choice(NUMBERS), *ne[place + 1 :]), kind, at
        case 2:
            return name, ne, rng.randrange(45), at
    return name, ne, kind, rng.choice((*NUMBERS, (at + 32) % 2**64, at - 32 if at >= 32 else 0))


def _new_pair(rng: random.Random) -> bytes:
    key, number = rng.choice(KEYS), rng.choice(NUMBERS)
    match rng.randrange(7):
        case 0:
            return pair(key, "uint32", struct.pack("<I", number % 2**32))
        case 1:
            return pair(key, "uint64", struct.pack("<Q", number))
        case 2:
            return pair(key, "string", text(rng.choice(("llama", "gpt2", "", "é"))))
        case 3:
            return pair(key, "array", array("string", 2, text("a") + text(b"b\xc3\xa9")))
        case 4:
            return pair(key, "array", array("int32", 2, struct.pack("<2i", 4, -1)))
        case 5:
            return pair(key, "float32", struct.pack("<f", float(number)))
    return pair(key, rng.choice(("bool", "int8")), bytes([number % 3]))


def _lay_out(file: _File) -> None:
    """One tensor after the other, as if all were as long as 32 bytes or F32 says."""
    offset = 0
    for place, (name, ne, kind, _) in enumerate(file.tensors):
        file.tensors[place] = (name, ne, kind, offset % 2**64)
        elements = 1
        for size in ne:
            elements *= size
        nbytes = {0: 4 * elements, 1: 2 * elements, 2: elements // 32 * 18, 8: elements // 32 * 34}
        offset += -(-nbytes.get(kind, elements // 256 * 144) // 32) * 32
    if offset <= MAX_DATA:
        file.data = file.data[:offset].ljust(offset, b"\0")


def _parse(data: bytes) -> _File:
    if data[:4] != b"GGUF":
        raise _UnreadableError
    version, tensor_count, pair_count = struct.unpack_from("<IQQ", data, 4)
    if tensor_count > 1000 or pair_count > 1000:
        raise _UnreadableError
    file, position = _File(version), 24
    for _ in range(pair_count):
        end = _skip_value(data, _skip_text(data, position))
        file.pairs.append(data[position:end])
        position = end
    for _ in range(tensor_count):
        end = _skip_text(data, position)
        name = data[position + 8 : end]
        (dimensions,) = struct.unpack_from("<I", data, end)
        if dimensions > 8:
            raise _UnreadableError
        ne = struct.unpack_from(f"<{dimensions}Q", data, end + 4)
        kind, offset = struct.unpack_from("<IQ", data, end + 4 + 8 * dimensions)
        file.tensors.append((name, ne, kind, offset))
        position = end + 16 + 8 * dimensions
    file.data = data[-(-position // 32) * 32 :]
    return file


def _skip_text(data: bytes, position: int) -> int:
    (length,) = struct.unpack_from("<Q", data, position)
    if position + 8 + length > len(data):
        raise _UnreadableError
    return position + 8 + int(length)


def _skip_value(data: bytes, position: int) -> int:
    (kind,) = struct.unpack_from("<I", data, position)
    position += 4
    count = 1
    if kind == ARRAY:
        kind, count = struct.unpack_from("<IQ", data, position)
        position += 12
    if count > len(data):
        raise _UnreadableError
    if kind == STRING:
        for _ in range(count):
            position = _skip_text(data, position)
    elif kind in SIZES:
        position += SIZES[kind] * count
    else:
        raise _UnreadableError
    if position > len(data):
        raise _UnreadableError
    return position
