"""The page for operators names what a server tells."""

from __future__ import annotations

import ast
import re

import pytest
from tests.docs.readme import REPOSITORY
from typer.testing import CliRunner

from quantd_server.api.metrics import Metrics
from quantd_server.cli.application import application
from quantd_server.jobs.service import JobService

PAGE = REPOSITORY / "docs" / "observability.md"
TEXT = PAGE.read_text(encoding="utf-8")
SERVER = REPOSITORY / "server" / "quantd_server"
ROW = re.compile(r"^\| `([\w.]+)` \| *([^|]*?) *\| *([^|]*?) *\|", re.MULTILINE)


def section(heading: str) -> str:
    return TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_metrics_are_those_of_a_server():
    service = JobService(
        max_running=1,
        max_queued=1,
        max_finished=1,
        max_events=2,
        heartbeat_interval=1.0,
        threads=1,
        log=lambda event, **fields: None,
    )
    _, content = Metrics(service).render("")
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", content.decode(), re.MULTILINE))
    ours = {
        name: kind
        for name, kind in types.items()
        if name.startswith(("grpc_", "quantd_")) and not name.endswith("_created")
    }
    assert {row[0]: row[1] for row in ROW.findall(section("Metrics"))} == ours


def calls_of_the_log(event: str) -> str:
    """The source of the call that writes an event."""
    for path in sorted(SERVER.rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            match call:
                case ast.Call(func=function, args=[ast.Constant(value=name), *_]):
                    if name == event and ast.unparse(function).endswith("log"):
                        return ast.unparse(call)
    raise AssertionError(f"nothing writes {event}")


@pytest.mark.parametrize("row", ROW.findall(section("Log")), ids=lambda row: row[0])
def test_lines_of_the_log(row):
    source = calls_of_the_log(row[0])
    for field in re.findall(r"`(\w+)`", row[2]):
        assert f"{field}=" in source


def test_options_exist():
    known = CliRunner().invoke(application, ["serve", "--help"], env={"COLUMNS": "300"}).stdout
    for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT):
        assert option in known


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (PAGE.parent / target).exists(), target
