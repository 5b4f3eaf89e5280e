"""Regular expressions from requests.

RE2, whatever a caller sends, matches in linear time; Python's ``re`` could be made to run forever.
"""

from __future__ import annotations

from typing import Any, Protocol

import re2

MAX_PATTERN_LENGTH = 512


class Pattern(Protocol):
    """What is used of a compiled expression."""

    def search(self, text: str) -> Any: ...

    def match(self, text: str) -> Any: ...


def compile_pattern(text: str) -> Pattern:
    """The compiled expression. Raises ValueError, saying what is wrong with it."""
    if len(text) > MAX_PATTERN_LENGTH:
        raise ValueError(f"it is longer than {MAX_PATTERN_LENGTH} characters")
    options = re2.Options()
    options.log_errors = False
    try:
        compiled: Pattern = re2.compile(text, options)
    except re2.error as error:
        reason = error.args[0] if error.args else "not a regular expression"
        raise ValueError(
            reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        ) from None
    return compiled
