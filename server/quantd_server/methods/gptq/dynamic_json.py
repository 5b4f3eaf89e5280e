"""`dynamic` of GPTQModel: an object from pattern to settings of the modules that match.

"+:PATTERN" or "PATTERN" gives the matching modules settings of their own, "-:PATTERN" leaves them
out. Readers match a pattern at the start of the name (``re.match``); the spec searches. So
"lm_head" there is "^(?:lm_head)" here, and "attn" here is ".*(?:attn)" there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from quantd_server.methods.configs import GptqModuleRule
from quantd_server.methods.patterns import compile_pattern

SETTINGS = ("bits", "desc_act", "group_size", "sym")

_ANYWHERE = (".*(?:", ")")
_AT_START = ("^(?:", ")")


def dynamic_json(rules: Iterable[GptqModuleRule]) -> dict[str, Any]:
    """The object for ``rules``, in their order.

    Of two rules with the same pattern only the first ever matches; the other is left out.
    """
    members: dict[str, Any] = {}
    for rule in rules:
        key = ("-:" if rule.exclude else "+:") + matched_at_start(rule.pattern)
        settings = {
            name: getattr(rule, name) for name in SETTINGS if getattr(rule, name) is not None
        }
        members.setdefault(key, settings)
    return members


def searched(pattern: str) -> str:
    """The expression to search that finds what ``pattern`` matches from the start."""
    inner = _inside(pattern, *_ANYWHERE)
    return pattern.join(_AT_START) if inner is None else inner


def matched_at_start(pattern: str) -> str:
    """The inverse of ``searched``."""
    inner = _inside(pattern, *_AT_START)
    if inner is not None and _inside(inner, *_ANYWHERE) is None:
        return inner
    return pattern.join(_ANYWHERE)


def _inside(pattern: str, opening: str, closing: str) -> str | None:
    """What the one group holds that ``pattern`` consists of; None if it does not."""
    if not (pattern.startswith(opening) and pattern.endswith(closing)):
        return None
    inner = pattern[len(opening) : -len(closing)]
    try:
        compile_pattern(inner)  # "(?:a)|(b)" begins and ends alike, but "a)|(b" is no expression
    except ValueError:
        return None
    return inner
