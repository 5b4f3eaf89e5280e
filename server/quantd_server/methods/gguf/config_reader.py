"""Reads a Hugging Face ``config.json`` that may say anything, and collects what is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from quantd_server.errors import quoted
from quantd_server.methods.gguf.report import Report

MAX_INTEGER = 2**31 - 1


class ConfigReader(Report):
    """Typed access to a config; every problem becomes a finding and a harmless value."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = config

    def integer(self, key: str, default: int | None = None, *, minimum: int = 1) -> int:
        """A whole number of at least ``minimum``; ``default`` if the key is absent or null."""
        value = self.config.get(key)
        if value is None and default is not None:
            return default
        if type(value) is not int or not minimum <= value <= MAX_INTEGER:
            self.bad(key, value, f"a whole number from {minimum} to {MAX_INTEGER}")
            return max(minimum, 1)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number above zero; ``default`` if the key is absent or null."""
        return positive_number(self, self.config, key, default)

    def flag(self, key: str, *, default: bool) -> bool:
        value = self.config.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.bad(key, value, "true or false")
            return default
        return value

    def bad(self, key: str, value: object, allowed: str) -> None:
        """Reports that ``key`` has a value that is not ``allowed``."""
        got = "is missing" if value is None else f"is {quoted(value)}"
        self.error(
            "CONFIG_FIELD_INVALID",
            f"{key} in config.json {got}; it must be {allowed}",
            "use the config.json that was published with the model",
        )


def positive_number(
    reader: ConfigReader, mapping: Mapping[str, Any], key: str, default: float | None = None
) -> float:
    """``mapping[key]`` as a finite number above zero; problems are reported to ``reader``."""
    value = mapping.get(key)
    if value is None and default is not None:
        return default
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or value <= 0
    ):
        reader.bad(key, value, "a finite number above 0")
        return 1.0
    return float(value)
