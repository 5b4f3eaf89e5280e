"""Which sequences of the data are used, and in which order."""

from __future__ import annotations

import hashlib
import itertools


def spread_sample(count: int, wanted: int, seed: int) -> list[int]:
    """``wanted`` different numbers of range(count), or all of them, in an order of their own.

    One of every count/wanted consecutive numbers is taken, so that the sample is spread over the
    whole; ``seed`` decides which, and in which order. The draws are SHA-256 digests: the same in
    every version of every language, which `random` does not promise.
    """
    if count <= wanted:
        chosen = list(range(count))
    else:
        bounds = [place * count // wanted for place in range(wanted + 1)]
        chosen = [
            low + _draw(f"{seed} choice {low}") % (high - low)
            for low, high in itertools.pairwise(bounds)
        ]
    return sorted(chosen, key=lambda number: _draw(f"{seed} order {number}"))


def _draw(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
