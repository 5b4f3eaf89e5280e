"""Compares what came with what a vector expects.

An expectation is protobuf JSON that says as much as matters: fields that it leaves out may be
anything. A list has to be as long as the one that came, each item matching its own. Beside values,
there are these forms:

    {"$some": [item, ...]}   each item matches one of the list, wherever it stands
    {"$none": item}          nothing in the list matches it
    {"$each": item}          everything in the list matches it, and it is not empty
    {"$length": 3}           a list of so many
    {"$between": [1, 2]}     a number of at least the one and at most the other
    {"$text": "pattern"}     a text in which the pattern is found
    {"$json": value}         a text that is this value as JSON
    {"$absent": true}        not set, or what an unset field reads as
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message


def plain(message: Message) -> Any:
    """The message as JSON values with all fields, those that have their default too."""
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


def differences(expected: Any, actual: Any, path: str = "") -> Iterator[str]:
    """What does not match, a sentence each."""
    if isinstance(expected, dict):
        (form, wanted), *more = expected.items() or [("", None)]
        if form.startswith("$") and not more:
            yield from _FORMS[form](wanted, actual, path)
        elif not isinstance(actual, dict):
            yield f"{path or 'message'}: expected an object, got {shown(actual)}"
        else:
            for key, value in expected.items():
                yield from differences(value, actual.get(key), f"{path}.{key}".lstrip("."))
    elif isinstance(expected, list):
        if not isinstance(actual, list) or len(actual) != len(expected):
            yield f"{path}: expected {shown(expected)}, got {shown(actual)}"
        else:
            for place, (each, other) in enumerate(zip(expected, actual, strict=True)):
                yield from differences(each, other, f"{path}[{place}]")
    elif not _is_equal(expected, actual):
        yield f"{path}: expected {shown(expected)}, got {shown(actual)}"


def matches(expected: Any, actual: Any) -> bool:
    """Whether nothing differs."""
    return next(differences(expected, actual), None) is None


def shown(value: Any) -> str:
    """A value in a message: short."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 600 else f"{text[:600]}..."


def _is_equal(expected: Any, actual: Any) -> bool:
    if isinstance(expected, bool) or isinstance(actual, bool):
        return expected is actual
    if isinstance(expected, float) and isinstance(actual, int | float):
        return math.isclose(expected, actual, rel_tol=1e-9)
    if isinstance(expected, int) and isinstance(actual, str):
        return str(expected) == actual  # 64-bit integers are texts in protobuf JSON
    return expected == actual


def _items(actual: Any) -> list[Any]:
    return actual if isinstance(actual, list) else []


def _some(wanted: list[Any], actual: Any, path: str) -> Iterator[str]:
    for item in wanted:
        if not any(matches(item, each) for each in _items(actual)):
            yield f"{path}: nothing is like {shown(item)} in {shown(actual)}"


def _none(wanted: Any, actual: Any, path: str) -> Iterator[str]:
    for each in _items(actual):
        if matches(wanted, each):
            yield f"{path}: {shown(each)} should not be there"


def _each(wanted: Any, actual: Any, path: str) -> Iterator[str]:
    if not _items(actual):
        yield f"{path}: is empty"
    for place, each in enumerate(_items(actual)):
        yield from differences(wanted, each, f"{path}[{place}]")


def _length(wanted: int, actual: Any, path: str) -> Iterator[str]:
    if not isinstance(actual, list) or len(actual) != wanted:
        yield f"{path}: expected {wanted} items, got {shown(actual)}"


def _between(wanted: list[float], actual: Any, path: str) -> Iterator[str]:
    least, most = wanted
    try:
        inside = least <= float(actual) <= most
    except (TypeError, ValueError):
        inside = False
    if not inside:
        yield f"{path}: expected a number from {least} to {most}, got {shown(actual)}"


def _text(wanted: str, actual: Any, path: str) -> Iterator[str]:
    if not isinstance(actual, str) or not re.search(wanted, actual):
        yield f"{path}: expected a text with {wanted!r}, got {shown(actual)}"


def _json(wanted: Any, actual: Any, path: str) -> Iterator[str]:
    try:
        value = json.loads(actual or "")
    except (TypeError, ValueError):
        value = None
    if value != wanted:
        yield f"{path}: expected {shown(wanted)} as JSON, got {shown(actual)}"


def _absent(_: Any, actual: Any, path: str) -> Iterator[str]:
    if actual not in (None, "", 0, "0", False, [], {}):
        yield f"{path}: expected nothing, got {shown(actual)}"


_FORMS = {
    "$some": _some,
    "$none": _none,
    "$each": _each,
    "$length": _length,
    "$between": _between,
    "$text": _text,
    "$json": _json,
    "$absent": _absent,
}
