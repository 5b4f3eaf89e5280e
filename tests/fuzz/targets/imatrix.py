"""The reader of importance matrices, in both of their forms."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping

from tests.checkpoint.builders import gguf_bytes, tensor
from tests.fuzz.bounds import check_refusal
from tests.fuzz.gguf_mutation import mutate_gguf
from tests.fuzz.target import Target, folder

from quantd_server.checkpoint.imatrix import read_importance_matrix
from quantd_server.errors import QuantdError


def run(data: bytes) -> None:
    path = folder() / "fuzzed.imatrix"
    path.write_bytes(data)
    try:
        entries = read_importance_matrix(path)
    except QuantdError as error:
        check_refusal(error)
        return
    assert entries
    for values in entries.values():
        assert values.typecode == "f" and all(0 <= value < float("inf") for value in values)


def _binary(*entries: tuple[bytes, int, tuple[float, ...]]) -> bytes:
    pieces = [struct.pack("<i", len(entries))]
    for name, calls, values in entries:
        pieces += [struct.pack("<i", len(name)), name, struct.pack("<2i", calls, len(values))]
        pieces.append(struct.pack(f"<{len(values)}f", *values))
    return b"".join(pieces)


def seeds() -> Mapping[str, bytes]:
    pairs = [tensor("w.in_sum2", (4, 2)), tensor("w.counts", (1, 2), at=32)]
    sums = struct.pack("<8f", *range(8))
    return {
        "binary": _binary((b"blk.0.ffn_up.weight", 2, (1.0, 2.0)), (b"output", 0, (0.5,))),
        "binary_negative": _binary((b"w", 1, (-1.0,))),
        "binary_infinite": _binary((b"w", 1, (float("inf"), float("nan")))),
        "binary_long": struct.pack("<4i", 1, 0, 1, 2**28),
        "gguf": gguf_bytes([], pairs, sums + struct.pack("<2f", 2, 0).ljust(32, b"\0")),
        "gguf_one_count": gguf_bytes(
            [], [pairs[0], tensor("w.counts", (1,), at=32)], sums + bytes(32)
        ),
        "gguf_no_counts": gguf_bytes([], pairs[:1], sums),
        "gguf_half": gguf_bytes([], [tensor("w.in_sum2", (4,), 1), pairs[1]], bytes(64)),
        "empty": b"",
        "zeros": bytes(64),
    }


def mutate(
    data: bytes, max_size: int, rng: random.Random, mutate_bytes: Callable[[bytes, int], bytes]
) -> bytes:
    if data.startswith(b"GGUF"):
        return mutate_gguf(data, max_size, rng, mutate_bytes)
    if len(data) < 8 or rng.random() < 0.5:
        return mutate_bytes(data, max_size)
    changed, at = bytearray(data), rng.randrange(len(data) // 4) * 4
    number = rng.choice((0, 1, 2, 3, -1, 1024, 1025, 250_001, 2**28, 2**31 - 1, 0x7F800000))
    changed[at : at + 4] = struct.pack("<i", number)
    return bytes(changed)


TARGET = Target(run=run, seeds=seeds, mutate=mutate)
