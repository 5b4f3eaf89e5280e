"""JSON as configurations hold it: Python's dialect, with what is wrong in it noted.

Python writes NaN and Infinity and keeps the last of two equal keys, so such files exist. They are
read, and what is ambiguous about them is found afterwards, by path.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from quantd_server.errors import QuantdError, quoted

MAX_INTEGER_DIGITS = 18
"""Longer integers are read as floats: no field needs one, and converting thousands of digits is
quadratic work."""

_LOOKED_AT = (dict, list, float, str)
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,119}")


class TooDeeplyNestedError(Exception):
    """The text nests lists and objects deeper than Python's parser goes (about 1,000)."""


class JsonObject(dict[str, Any]):
    """An object that remembers which of its keys the text has more than once."""

    repeated: tuple[str, ...] = ()


def read_object(text: str) -> JsonObject:
    """The object in ``text``.

    Raises QuantdError CONFIG_NOT_JSON when there is none, and TooDeeplyNestedError.
    """
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _not_json(
            f"the text is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except RecursionError:
        raise TooDeeplyNestedError from None
    if not isinstance(value, JsonObject):
        raise _not_json("the text is JSON, but not an object")
    return value


def child(path: str, key: str) -> str:
    """Path of a member: "meta.mse"; keys that are no plain names are quoted: 'dynamic["-:a"]'."""
    if _PLAIN_KEY.fullmatch(key):
        return f"{path}.{key}" if path else key
    return f"{path}[{quoted(key)}]"


def below(path: str, place: str) -> str:
    """``place``, a path inside the value at ``path``, from where ``path`` starts."""
    return f"{path}.{place}" if place and not place.startswith("[") else path + place


class Defect(NamedTuple):
    """Something that JSON does not define the meaning of."""

    place: str
    reason: str
    message: str
    """To follow the place."""


def defects(value: Any, path: str) -> Iterator[Defect]:
    """All that JSON does not define the meaning of in ``value``, which is at ``path``.

    Those are keys that are there twice, numbers that are not finite, and texts that are no
    Unicode. Not recursive: the value may be as deep as the parser allows.
    """
    pending = [(path, value)]
    while pending:
        place, item = pending.pop()
        if isinstance(item, JsonObject):
            for key in item.repeated:
                yield Defect(child(place, key), "CONFIG_DUPLICATE_KEY", "is there more than once")
            for key, member in item.items():
                if not _is_unicode(key):
                    yield Defect(
                        child(place, key), "CONFIG_NOT_UNICODE", "has a name that is no Unicode"
                    )
                if isinstance(member, _LOOKED_AT):
                    pending.append((child(place, key), member))
        elif isinstance(item, list):
            pending += [
                (f"{place}[{index}]", member)
                for index, member in enumerate(item)
                if isinstance(member, _LOOKED_AT)
            ]
        elif isinstance(item, float) and not math.isfinite(item):
            yield Defect(place, "CONFIG_VALUE_NOT_FINITE", f"is {item}; allowed: a finite number")
        elif isinstance(item, str) and not _is_unicode(item):
            yield Defect(place, "CONFIG_NOT_UNICODE", "holds half of a surrogate pair")


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can say it. JSON can escape half of a surrogate pair, which it cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> JsonObject:
    value = JsonObject(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        repeated: dict[str, None] = {}
        for key, _ in pairs:
            if key in seen:
                repeated[key] = None
            seen.add(key)
        value.repeated = tuple(repeated)
    return value


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_INTEGER_DIGITS else float(digits)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)


def _not_json(message: str) -> QuantdError:
    return QuantdError(
        reason="CONFIG_NOT_JSON",
        field="config_json",
        message=message,
        remedy="send the JSON object of a quantization_config, or the text of config.json",
    )
