"""What is said about a reason."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One reason code; its severities and statuses are read from the code that gives it."""

    meaning: str
    """What it says about the request, in one sentence. Once published, it never changes."""
    action: str
    """What a client, or the person before it, should do."""


class Area(msgspec.Struct, frozen=True, kw_only=True):
    """Reasons about the same thing."""

    title: str
    about: str
    reasons: Mapping[str, Reason]
    """By their codes, which are in alphabetical order."""
