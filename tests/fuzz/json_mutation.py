"""Changes of JSON that leave it JSON."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

ATOMS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 4, 8, 16, 64, 128, 2**31 - 1, 2**31, 2**32, 2**48, 2**53, 2**63,
    -(2**63), 2**64, 10**30, 0.0, 0.5, -0.0, 1e308, 1e-320, "", "a", "\0", "\ud800", "é世\u202e",
    "a" * 300, [], {}, [[]], [0, 8],
)  # fmt: skip


def mutate_json(value: Any, rng: random.Random, words: Sequence[str] = ()) -> Any:
    """A copy of ``value`` with one change; ``words`` are keys and texts that mean something."""
    value = copy.deepcopy(value)
    containers = [node for node in _nodes(value) if isinstance(node, dict | list)]
    if not containers:
        return _atom(value, rng, words)
    node = rng.choice(containers)
    if not node:
        _insert(node, _atom(None, rng, words), rng, words)
        return value
    place: Any = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
    match rng.randrange(8):
        case 0:
            del node[place]
        case 1:
            _insert(node, copy.deepcopy(rng.choice(_nodes(value))), rng, words)
        case 2:
            _insert(node, _atom(None, rng, words), rng, words)
        case 3 if isinstance(node, dict):
            key = rng.choice(words) if words else rng.choice(list(node)) + "x"
            node[key] = node.pop(place)
        case 4:
            node[place] = copy.deepcopy(rng.choice(_nodes(value)))
        case 5:
            node[place] = [node[place]] if rng.random() < 0.5 else {"a": node[place]}
        case _:
            node[place] = _atom(node[place], rng, words)
    return value


def mutate_text(
    data: bytes,
    max_size: int,
    rng: random.Random,
    mutate_bytes: Callable[[bytes, int], bytes],
    words: Sequence[str] = (),
) -> bytes:
    """JSON text with a few changes of its values, or of its bytes, also where it is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(data, max_size)
    if rng.random() < 0.15:
        return mutate_bytes(data, max_size)
    try:
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            value = mutate_json(value, rng, words)
        text = json.dumps(value).encode()
    except RecursionError:
        return mutate_bytes(data, max_size)
    return text if len(text) <= max_size else mutate_bytes(data, max_size)


def _nodes(value: Any) -> list[Any]:
    found, todo = [], [value]
    while todo:
        node = todo.pop()
        found.append(node)
        if isinstance(node, dict | list):
            todo.extend(node.values() if isinstance(node, dict) else node)
    return found


def _insert(node: dict[str, Any] | list[Any], value: Any, rng: random.Random, words: Any) -> None:
    if isinstance(node, list):
        node.insert(rng.randint(0, len(node)), value)
    else:
        node[rng.choice(words or ("a", "b", *node))] = value


def _atom(value: Any, rng: random.Random, words: Sequence[str]) -> Any:
    choice = rng.randrange(4)
    if choice == 0 and isinstance(value, int | float) and abs(value) < 2**70:
        return value + rng.choice((-1, 1, 8, -8, 1024))
    if choice == 1 and isinstance(value, str):
        at = rng.randint(0, len(value))
        return value[:at] + rng.choice(("", ".", "0", "/", "..", "\n", "\u00ff")) + value[at + 1 :]
    if choice == 2 and words:
        return rng.choice(words)
    return copy.deepcopy(rng.choice(ATOMS))
