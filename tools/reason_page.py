"""Writes docs/reasons.md: every reason code, what it means, what to do, how it comes.

Meaning and action are those of `quantd_server.reasons`; severities and statuses are read from the
server's sources. A reason that is in one of the two and not in the other is an error.

Usage: python tools/reason_page.py [--check]
"""

from __future__ import annotations

import argparse
import difflib
import functools
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from quantd_server.api.error_codec import CODES
from quantd_server.reasons import AREAS, REASONS, Area
from raised_reasons import RaisedReasons, Use
from rule_reasons import rule_reasons

REPOSITORY = Path(__file__).resolve().parent.parent
SERVER = REPOSITORY / "server" / "quantd_server"
PAGE = REPOSITORY / "docs" / "reasons.md"

INTRODUCTION = """\
<!-- Written by `make generate` from server/quantd_server/reasons/: do not edit. -->

# Reason codes

A program branches on the reason: of a finding (`Finding.reason`), of a failed call
(`google.rpc.ErrorInfo.reason`, and one for each violation), or of an unmet requirement
(`UnmetRequirement.reason`). Once published, a reason never changes its meaning, and messages may
change at any time. New reasons appear with new versions: treat one that you do not know by its
severity and its status.

The last column says how a reason comes. INFO and WARNING are findings beside an answer. ERROR is a
finding in an answer that lists findings; a call that it makes fail, or the job that it ends
(`Job.error`), has the status in parentheses. A call with several problems has the status and the
reason of the gravest, and lists the others as violations.
"""


class PageError(Exception):
    """The page cannot be written, or is not what would be written."""


@functools.cache
def raised() -> RaisedReasons:
    """All reasons in the server's sources."""
    return RaisedReasons(SERVER, rule_reasons())


def complaints(found: RaisedReasons, registered: Collection[str]) -> Iterator[str]:
    """What does not fit together, and how to mend it."""
    yield from sorted(set(found.problems))
    for code in sorted(found.uses.keys() - set(registered)):
        places = ", ".join(sorted(found.uses[code].places))
        yield (
            f"{places}: {code} has no entry; say what it means in the module of its area in "
            "server/quantd_server/reasons/, then run `make generate`"
        )
    for code in sorted(set(registered) - found.uses.keys()):
        yield (
            f"{code}: nothing gives this reason; remove its entry from "
            "server/quantd_server/reasons/, then run `make generate`"
        )


def page(uses: Mapping[str, Use]) -> str:
    """The text of docs/reasons.md."""
    return INTRODUCTION + "".join(map("\n".join, (_section(area, uses) for area in AREAS)))


def _section(area: Area, uses: Mapping[str, Use]) -> list[str]:
    rows = (
        f"| `{code}` | {reason.meaning} | {reason.action} | {how_it_comes(uses[code])} |"
        for code, reason in area.reasons.items()
    )
    head = ("| reason | meaning | what to do | comes as |", "|---|---|---|---|")
    return ["", f"## {area.title}", "", area.about, "", *head, *rows, ""]


def how_it_comes(use: Use) -> str:
    """As "ERROR (NOT_FOUND), WARNING, unmet requirement"."""
    statuses = sorted(
        CODES[kind].name  # type: ignore[index]
        for severity, kind in use.outcomes
        if severity == "ERROR"
    )
    ways = [f"ERROR ({' or '.join(statuses)})"] if statuses else []
    said = {severity for severity, _ in use.outcomes}
    ways += [severity for severity in ("WARNING", "INFO") if severity in said]
    if use.is_requirement:
        ways.append("unmet requirement")
    return ", ".join(ways)


def written() -> str:
    """The page as it has to be. Raises PageError when code and registry do not agree."""
    found = raised()
    if problems := list(complaints(found, REASONS)):
        raise PageError("\n".join(problems))
    return page(found.uses)


def check() -> None:
    """Raises PageError when the committed page is not the one that would be written."""
    text = written()
    committed = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    if text != committed:
        changes = difflib.unified_diff(
            committed.splitlines(keepends=True), text.splitlines(keepends=True), "committed", "new"
        )
        raise PageError(f"{''.join(changes)}\ndocs/reasons.md is outdated; run `make generate`")


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the page of reason codes.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail when the page is outdated"
    )
    arguments = parser.parse_args()
    try:
        check() if arguments.check else PAGE.write_text(written(), encoding="utf-8")
    except PageError as error:
        print(f"reason_page: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
