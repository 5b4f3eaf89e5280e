"""Collects findings about a source, so that one pass tells every problem."""

from __future__ import annotations

from collections.abc import Sequence

from quantd_server.errors import Finding, FindingKind, Severity

FIELD = "spec.source_uri"
MAX_SUBJECTS = 16
"""Names that one finding lists."""


class Report:
    """Findings in the order in which they were made."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def error(
        self,
        reason: str,
        message: str,
        remedy: str,
        kind: FindingKind = "precondition",
        subjects: Sequence[str] = (),
    ) -> None:
        self._record(Severity.ERROR, reason, message, remedy, kind, subjects)

    def unsupported(self, message: str, remedy: str) -> None:
        """A feature that llama.cpp, or this converter, does not have."""
        self.error("GGUF_FEATURE_UNSUPPORTED", message, remedy)

    def warn(self, reason: str, message: str, remedy: str) -> None:
        self._record(Severity.WARNING, reason, message, remedy, "precondition", ())

    def note(self, reason: str, message: str, remedy: str) -> None:
        self._record(Severity.INFO, reason, message, remedy, "precondition", ())

    def _record(
        self,
        severity: Severity,
        reason: str,
        message: str,
        remedy: str,
        kind: FindingKind,
        subjects: Sequence[str],
    ) -> None:
        self.findings.append(
            Finding(
                severity=severity,
                field=FIELD,
                reason=reason,
                message=message,
                remedy=remedy,
                kind=kind,
                subjects=tuple(subjects[:MAX_SUBJECTS]),
                subject_count=len(subjects),
            )
        )
