"""`dynamic` of GPTQModel, read: see ``methods.gptq.dynamic_json`` for what it is.

The order counts, the first rule that matches wins, and is kept in canonical JSON.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from quantd_server.errors import quoted
from quantd_server.methods.configs import GptqModuleRule
from quantd_server.methods.gptq.dynamic_json import dynamic_json, searched
from quantd_server.methods.patterns import compile_pattern
from quantd_server.planning.config_parsing.json_text import child
from quantd_server.planning.config_parsing.rules import (
    Boolean,
    Integer,
    Rule,
    ValueRefusedError,
    not_allowed,
    wrong_type,
)

BITS = Integer(choices=(2, 3, 4, 8))
GROUP_SIZE = Integer(choices=(-1, 16, 32, 64, 128, 256, 512, 1024))
SETTINGS: dict[str, Rule] = {
    "bits": BITS,
    "group_size": GROUP_SIZE,
    "sym": Boolean(),
    "desc_act": Boolean(),
}
MAX_RULES = 256
MAX_PATTERN_LENGTH = 512


class ModuleRules:
    """The rule for `dynamic`."""

    allowed = f"an object of at most {MAX_RULES} patterns, each with an object of settings"

    def read(self, value: Any) -> tuple[GptqModuleRule, ...]:
        if not isinstance(value, dict):
            raise wrong_type(value, self.allowed)
        if len(value) > MAX_RULES:
            raise ValueRefusedError(
                "CONFIG_VALUE_NOT_ALLOWED", f"{len(value)} patterns; allowed: {self.allowed}"
            )
        rules = {key: _rule(key, settings) for key, settings in value.items()}
        places: dict[tuple[bool, str], str] = {}
        for key, rule in rules.items():
            other = places.setdefault((rule.exclude, rule.pattern), key)
            if other != key:
                raise not_allowed(
                    key, f"each pattern once; {quoted(other)} is the same", child("", key)
                )
        return tuple(rules.values())

    def write(self, value: Iterable[GptqModuleRule]) -> dict[str, Any]:
        return dynamic_json(value)


def _rule(key: str, settings: Any) -> GptqModuleRule:
    place = child("", key)
    if not isinstance(settings, dict):
        raise wrong_type(settings, "an object of settings", place)
    pattern = searched(key.removeprefix("-:") if key.startswith("-:") else key.removeprefix("+:"))
    if not 1 <= len(pattern) <= MAX_PATTERN_LENGTH:
        raise not_allowed(key, f"a pattern of 1 to {MAX_PATTERN_LENGTH} characters", place)
    try:
        compile_pattern(pattern)
    except ValueError as error:
        raise ValueRefusedError(
            "PATTERN_INVALID", f"no regular expression that RE2 understands ({error})", place
        ) from None
    values: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in SETTINGS:
            raise ValueRefusedError(
                "UNKNOWN_FIELDS",
                f"a setting that is not understood; allowed: {', '.join(SETTINGS)}",
                child(place, name),
            )
        if value is None:
            continue
        try:
            values[name] = SETTINGS[name].read(value)
        except ValueRefusedError as refusal:
            raise ValueRefusedError(refusal.reason, refusal.message, child(place, name)) from None
    return GptqModuleRule(pattern=pattern, exclude=key.startswith("-:"), **values)
