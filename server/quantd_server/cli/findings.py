"""Findings, as people read them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from rich.console import Console
from rich.markup import escape

from quantd import v1
from quantd_server.cli.exit_codes import REFUSED, CommandEndedError
from quantd_server.cli.printing import messages
from quantd_server.cli.tables import device_name, engine_name

STYLES = {
    v1.Severity.SEVERITY_ERROR: ("error", "bold red"),
    v1.Severity.SEVERITY_WARNING: ("warning", "yellow"),
    v1.Severity.SEVERITY_INFO: ("info", "cyan"),
}
SHOWN_SUBJECTS = 4


def print_findings(findings: Iterable[v1.Finding], console: Console) -> None:
    """Each finding with its field, message and remedy."""
    for finding in findings:
        _print_finding(finding, finding.field, console)


def print_load_findings(loads: Iterable[v1.LoadAssessment], console: Console) -> None:
    """Why engines cannot load a checkpoint, or would be slow: each reason once."""
    places: dict[bytes, list[str]] = {}
    findings: dict[bytes, v1.Finding] = {}
    for load in loads:
        for finding in load.findings:
            key = finding.SerializeToString(deterministic=True)
            findings[key] = finding
            places.setdefault(key, []).append(f"{engine_name(load)} on {device_name(load)}")
    for key, finding in findings.items():
        _print_finding(finding, ", ".join(places[key]), console)


def _print_finding(finding: v1.Finding, place: str, console: Console) -> None:
    word, style = STYLES.get(finding.severity, ("finding", "bold"))
    place = f" {escape(place)}" if place else ""
    console.print(f"[{style}]{word}[/] [bold]{escape(finding.reason)}[/]{place}", soft_wrap=True)
    console.print(f"  {escape(finding.message)}", soft_wrap=True)
    if finding.subjects:
        shown = ", ".join(finding.subjects[:SHOWN_SUBJECTS])
        more = finding.subject_count - min(len(finding.subjects), SHOWN_SUBJECTS)
        rest = f" and {more} more" if more > 0 else ""
        console.print(f"  [dim]{escape(shown)}{rest}[/]", soft_wrap=True)
    if finding.remedy:
        console.print(f"  [green]fix:[/] {escape(finding.remedy)}", soft_wrap=True)


def refuse(findings: Iterable[v1.Finding]) -> NoReturn:
    """Prints findings as the reason why nothing was done.

    Raises:
        CommandEndedError: Always.
    """
    print_findings(findings, messages())
    raise CommandEndedError(REFUSED)


def has_error(findings: Iterable[v1.Finding]) -> bool:
    """Whether one of them stands against the request."""
    return any(finding.severity == v1.Severity.SEVERITY_ERROR for finding in findings)
