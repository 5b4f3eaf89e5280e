"""What parsing gives, and the list of what was noticed on the way."""

from __future__ import annotations

from typing import Literal

import msgspec

from quantd_server.errors import Finding, FindingKind, Severity
from quantd_server.host.packages import Package
from quantd_server.methods.configs import MethodConfig

ConfigStatus = Literal["NOT_QUANTIZED", "SERVED", "KNOWN", "UNKNOWN"]

MAX_FINDINGS = 64
"""Findings that one answer lists; the last of them says how many there are besides."""


class ParsedConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`ParseConfigResponse` of the spec."""

    status: ConfigStatus
    quant_method: str = ""
    method: MethodConfig | None = None
    """None unless it is one of the six methods and no finding is an ERROR."""
    canonical_json: str = ""
    unknown_fields: tuple[str, ...] = ()
    required_packages: tuple[Package, ...] = ()
    findings: tuple[Finding, ...] = ()


class Notes:
    """Collects findings: at most one of severity ERROR a field, the first."""

    def __init__(self) -> None:
        self._findings: list[Finding] = []
        self._wrong: set[str] = set()

    @property
    def wrong(self) -> bool:
        """Whether an ERROR was noted."""
        return bool(self._wrong)

    def refuse(
        self, field: str, reason: str, message: str, remedy: str, kind: FindingKind = "invalid"
    ) -> None:
        """Notes what is wrong with ``field``."""
        self.add(Finding(field=field, reason=reason, message=message, remedy=remedy, kind=kind))

    def add(self, finding: Finding) -> None:
        """Notes ``finding``, unless it is a second error about its field."""
        if finding.severity is Severity.ERROR:
            if finding.field in self._wrong:
                return
            self._wrong.add(finding.field)
        self._findings.append(finding)

    def findings(self) -> tuple[Finding, ...]:
        """What was noted, errors first."""
        ordered = sorted(self._findings, key=lambda finding: list(Severity).index(finding.severity))
        if len(ordered) <= MAX_FINDINGS:
            return tuple(ordered)
        left_out = len(ordered) - MAX_FINDINGS + 1
        last = Finding(
            severity=Severity.INFO,
            field="",
            reason="MORE_FINDINGS",
            message=f"{left_out} more findings are not listed",
            remedy="mend those that are listed first",
        )
        return (*ordered[: MAX_FINDINGS - 1], last)
