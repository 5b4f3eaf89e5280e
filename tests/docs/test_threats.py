"""The page of threats names what exists, and its example is a token file."""

from __future__ import annotations

import re

import pytest
from tests.docs.readme import REPOSITORY
from typer.testing import CliRunner

from quantd_server.api.token_file import entries_in
from quantd_server.cli.application import application

PAGE = REPOSITORY / "docs" / "threats.md"
TEXT = PAGE.read_text(encoding="utf-8")
SERVER = REPOSITORY / "server" / "quantd_server"


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:[\w-]+/)+[\w-]+\.py)`", TEXT))))
def test_paths_exist(path):
    assert (SERVER / path).exists()


def test_options_exist():
    (commands,) = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    for command in ("serve", "token new"):
        (line,) = re.findall(
            rf"quantd {command} ([^>]*?)(?:>>|$)", commands.replace("\\\n", ""), re.MULTILINE
        )
        known = CliRunner().invoke(
            application, [*command.split(), "--help"], env={"COLUMNS": "300"}
        )
        for option in re.findall(r"--[a-z-]+", line):
            assert option in known.stdout


def test_the_example_is_a_token_file():
    (example,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    entries = entries_in(example.encode())
    assert [entry.name for entry in entries.token] == ["ci"]
    assert [entry.role for entry in entries.certificate] == ["read"]
