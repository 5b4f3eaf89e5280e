"""Fixtures: the command line, run in this process against the fake server of the client's tests."""

from __future__ import annotations

import pytest
from tests.client.fake_server import FakeServer
from typer.testing import CliRunner

from quantd_server.cli.application import application


@pytest.fixture
def server(tmp_path_factory):
    with FakeServer(tmp_path_factory.mktemp("s")) as fake:
        yield fake


@pytest.fixture
def run(server, monkeypatch):
    """`run("jobs", "list")` gives the result: exit_code, stdout, stderr."""
    monkeypatch.setenv("QUANTD_SERVER", server.address)
    runner = CliRunner()
    return lambda *words: runner.invoke(application, list(words))
