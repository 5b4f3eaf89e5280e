"""The trace that a caller's call is part of, as W3C's headers say it.

https://www.w3.org/TR/trace-context/. It goes into the log, traced or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

TRACEPARENT_KEY, TRACESTATE_KEY = "traceparent", "tracestate"
MAX_STATE_LENGTH = 512
"""Of ``tracestate``, in characters; what is longer may be dropped, by the specification."""
# Version, trace, span and flags; of a version to come, what is known of version 0.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")


class TraceContext(msgspec.Struct, frozen=True, kw_only=True):
    """A span of somebody's trace."""

    trace_id: str
    """32 digits, hexadecimal."""
    span_id: str
    """16 digits."""
    flags: str = "00"
    """Two digits; the last bit says that the trace is recorded."""
    state: str = ""
    """What tracing systems add for each other."""

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


def trace_context(metadata: Iterable[tuple[str, str | bytes]]) -> TraceContext | None:
    """What the metadata of a call say; None where they say nothing, or nonsense."""
    values = {key: value for key, value in metadata if isinstance(value, str)}
    found = _TRACEPARENT.fullmatch(values.get(TRACEPARENT_KEY, "")[:256])
    if found is None or not found[1].strip("0") or not found[2].strip("0"):
        return None
    state = values.get(TRACESTATE_KEY, "")
    return TraceContext(
        trace_id=found[1],
        span_id=found[2],
        flags=found[3],
        state=state if len(state) <= MAX_STATE_LENGTH else "",
    )
