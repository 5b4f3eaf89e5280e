"""How many tokens are computed at once (pure: no torch)."""

from __future__ import annotations

import re
from collections.abc import Mapping

PROBE_TOKENS = 16
"""Tokens that are enough to see in which order a block calls its linears."""

STEP_FLOPS = 5e10
"""Of one step: a fraction of a second on two processor cores."""

MIN_TOKENS, MAX_TOKENS = 256, 2048

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def tokens_per_step(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Tokens in a micro-batch, from the shapes of a block's linears by name.

    The largest step multiplies by the weights of one stage and adds to one gram matrix. Of a set
    of experts one is counted.
    """
    alike = {_NUMBER.sub("#", name): shape for name, shape in shapes.items()}
    products = sum(2.0 * rows * columns for rows, columns in alike.values())
    gram = max((2.0 * max(shape) ** 2 for shape in alike.values()), default=0.0)
    tokens = int(STEP_FLOPS / max(1.0, products + gram))
    return max(MIN_TOKENS, min(MAX_TOKENS, tokens))
