"""What can be wrong, said once, in a form that every room shares.

A ``Finding`` is one statement about a request: what was got, what is allowed and how to fix it.
``PlanQuantization`` lists findings; everything else raises a ``QuantdError`` that carries one.
The api room turns both into gRPC statuses; nothing here knows gRPC.

Messages are shown to users: they name files inside the checkpoint folder by their relative name
and never hold a path of the server.
"""

from __future__ import annotations

import enum
from typing import Literal

import msgspec

FindingKind = Literal[
    "invalid",
    "precondition",
    "not_found",
    "unimplemented",
    "cancelled",
    "exists",
    "exhausted",
    "out_of_range",
    "unavailable",
    "internal",
    "unauthenticated",
    "denied",
]

MAX_QUOTED = 120
"""Longest piece of foreign text (a tensor name, a key) that a message repeats, in characters."""


class Severity(enum.StrEnum):
    """How much a finding weighs: an ERROR stops the job, the others are reported."""

    ERROR = "ERROR"
    WARNING = "WARNING"
    INFO = "INFO"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One statement about a request."""

    severity: Severity = Severity.ERROR
    field: str
    """Path of the field at fault, e.g. ``spec.source_uri`` or ``method.gguf.file_type``."""
    reason: str
    """Stable UPPER_SNAKE code for programs."""
    message: str
    """What was got and what is allowed, for people."""
    remedy: str
    """How to fix it."""
    kind: FindingKind = "invalid"
    """Chooses the status code; the first four can stand in a plan, the others only in errors."""
    subjects: tuple[str, ...] = ()
    """Names of the tensors or modules concerned, at most 16."""
    subject_count: int = 0
    """How many are concerned."""


class QuantdError(Exception):
    """A domain error; carries one :class:`Finding` of severity ERROR."""

    def __init__(
        self,
        *,
        reason: str,
        message: str,
        remedy: str = "",
        field: str = "",
        kind: FindingKind = "invalid",
        retry_delay: float | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_delay = retry_delay
        """Seconds after which the same may succeed, where somebody can tell; of this process."""
        self.finding = Finding(
            severity=Severity.ERROR,
            field=field,
            reason=reason,
            message=message,
            remedy=remedy,
            kind=kind,
        )

    @classmethod
    def from_finding(cls, finding: Finding) -> QuantdError:
        """The error that carries ``finding`` (for findings that crossed a process boundary)."""
        return cls(
            reason=finding.reason,
            message=finding.message,
            remedy=finding.remedy,
            field=finding.field,
            kind=finding.kind,
        )

    @property
    def reason(self) -> str:
        return self.finding.reason

    @property
    def message(self) -> str:
        return self.finding.message

    @property
    def remedy(self) -> str:
        return self.finding.remedy

    @property
    def field(self) -> str:
        return self.finding.field

    @property
    def kind(self) -> FindingKind:
        return self.finding.kind

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only __init__ arguments are not what Exception.__reduce__ replays, and errors
        # cross process boundaries.
        return (type(self).from_finding, (self.finding,))


class CheckpointError(QuantdError):
    """A checkpoint on disk is missing, malformed, of an unknown kind, or changed while in use."""

    def __init__(
        self,
        *,
        reason: str,
        message: str,
        remedy: str = "",
        field: str = "spec.source_uri",
        kind: FindingKind = "precondition",
    ) -> None:
        super().__init__(reason=reason, message=message, remedy=remedy, field=field, kind=kind)


def quoted(text: object) -> str:
    """``text`` as a message may repeat it: escaped, in quotes, and cut to ``MAX_QUOTED``."""
    raw = text if isinstance(text, str) else repr(text)
    return repr(raw) if len(raw) <= MAX_QUOTED else repr(raw[:MAX_QUOTED]) + "..."
