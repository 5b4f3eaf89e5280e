"""What a value of a `quantization_config` may be, and how it becomes a domain value.

The bounds are those of the spec's rules; ``tests/planning/config_parsing/test_rules_agree.py``
holds every table against them, field by field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from quantd_server.errors import quoted


class ValueRefusedError(Exception):
    """A value that a rule does not allow. ``place`` is a path inside it, such as "[3]"."""

    def __init__(self, reason: str, message: str, place: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.place = place


class Check(Protocol):
    """What a value may be."""

    @property
    def allowed(self) -> str:
        """What is allowed, to follow "allowed:"."""
        ...

    def read(self, value: Any) -> Any:
        """The domain value of a JSON value. Raises ValueRefusedError."""
        ...


class Rule(Check, Protocol):
    """What a value may be, and how it is written again."""

    def write(self, value: Any) -> Any:
        """The canonical JSON value of a domain value."""
        ...


def shown(value: object) -> str:
    """A JSON value as a message repeats it."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return quoted(value) if isinstance(value, str) else str(value)


def wrong_type(value: object, allowed: str, place: str = "") -> ValueRefusedError:
    """The refusal of a value of another JSON type."""
    return ValueRefusedError("CONFIG_WRONG_TYPE", f"{shown(value)}; allowed: {allowed}", place)


def not_allowed(value: object, allowed: str, place: str = "") -> ValueRefusedError:
    """The refusal of a value of the right type."""
    return ValueRefusedError(
        "CONFIG_VALUE_NOT_ALLOWED", f"{shown(value)}; allowed: {allowed}", place
    )


class _AsItIs:
    """Values that are the same in JSON and in the domain."""

    def write(self, value: Any) -> Any:
        return value


@dataclass(frozen=True)
class Anything:
    """A value that is not looked at."""

    allowed: str = "any value"

    def read(self, value: Any) -> Any:
        return value


@dataclass(frozen=True)
class Boolean(_AsItIs):
    """true or false; ``only`` narrows it to one of them."""

    only: bool | None = None

    @property
    def allowed(self) -> str:
        return "true or false" if self.only is None else shown(self.only)

    def read(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise wrong_type(value, self.allowed)
        if self.only is not None and value is not self.only:
            raise not_allowed(value, self.allowed)
        return value


@dataclass(frozen=True)
class Integer(_AsItIs):
    """An integer of a list, or between two bounds that are allowed themselves."""

    choices: tuple[int, ...] = ()
    minimum: int = 0
    maximum: int = 2**32 - 1

    @property
    def allowed(self) -> str:
        if self.choices:
            return _either([str(choice) for choice in self.choices])
        return f"an integer from {self.minimum} to {self.maximum}"

    def read(self, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(value, self.allowed)
        within = value in self.choices if self.choices else self.minimum <= value <= self.maximum
        if not within:
            raise not_allowed(value, self.allowed)
        return value


@dataclass(frozen=True)
class Number(_AsItIs):
    """A finite number between two bounds; an integer will do."""

    minimum: float = 0.0
    maximum: float = math.inf
    above_minimum: bool = False
    """Whether the minimum itself is not allowed."""
    below_maximum: bool = False

    @property
    def allowed(self) -> str:
        lower = f"{'above' if self.above_minimum else 'at least'} {self.minimum:g}"
        if self.maximum == math.inf:
            return f"a finite number, {lower}"
        upper = f"{'below' if self.below_maximum else 'at most'} {self.maximum:g}"
        return f"a number {lower} and {upper}"

    def read(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong_type(value, self.allowed)
        number = float(value)  # integers are at most 64 bits wide, see json_text
        if not math.isfinite(number):
            raise ValueRefusedError(
                "CONFIG_VALUE_NOT_FINITE", f"{shown(number)}; allowed: {self.allowed}"
            )
        too_low = number <= self.minimum if self.above_minimum else number < self.minimum
        too_high = number >= self.maximum if self.below_maximum else number > self.maximum
        if too_low or too_high:
            raise not_allowed(value, self.allowed)
        return number


@dataclass(frozen=True)
class Choice:
    """One of some texts, whatever the case of its letters."""

    names: Mapping[str, str]
    """Domain value by canonical spelling."""
    legacy: Mapping[str, str] = field(default_factory=dict)
    """Domain value by spelling that is read and never written."""

    @classmethod
    def of(cls, *names: str) -> Choice:
        """Texts that are their own domain values."""
        return cls({name: name for name in names})

    @property
    def allowed(self) -> str:
        return _either([quoted(name) for name in self.names])

    def read(self, value: Any) -> str:
        if not isinstance(value, str):
            raise wrong_type(value, self.allowed)
        for spelling, domain in (*self.names.items(), *self.legacy.items()):
            if spelling.casefold() == value.casefold():
                return domain
        raise not_allowed(value, self.allowed)

    def write(self, value: str) -> str:
        return next(name for name, domain in self.names.items() if domain == value)


@dataclass(frozen=True)
class Names:
    """A list of different texts that are not empty."""

    max_items: int = 1024
    max_length: int = 512

    @property
    def allowed(self) -> str:
        return (
            f"a list of at most {self.max_items} different texts of 1 to {self.max_length} "
            "characters"
        )

    def read(self, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise wrong_type(value, self.allowed)
        if len(value) > self.max_items:
            raise ValueRefusedError(
                "CONFIG_VALUE_NOT_ALLOWED", f"a list of {len(value)}; allowed: {self.allowed}"
            )
        seen: set[str] = set()
        for index, item in enumerate(value):
            if not isinstance(item, str):
                raise wrong_type(item, "a text", f"[{index}]")
            if not 1 <= len(item) <= self.max_length:
                raise not_allowed(item, f"1 to {self.max_length} characters", f"[{index}]")
            if item in seen:
                raise not_allowed(item, "each text once", f"[{index}]")
            seen.add(item)
        return tuple(value)

    def write(self, value: Sequence[str]) -> list[str]:
        return list(value)


@dataclass(frozen=True)
class Text(_AsItIs):
    """One text."""

    max_length: int

    @property
    def allowed(self) -> str:
        return f"a text of 1 to {self.max_length} characters"

    def read(self, value: Any) -> str:
        if not isinstance(value, str):
            raise wrong_type(value, self.allowed)
        if not 1 <= len(value) <= self.max_length:
            raise not_allowed(value, self.allowed)
        return value


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
