"""`quantd token`."""

from __future__ import annotations

import datetime as dt
import hashlib
import re

import pytest
from typer.testing import CliRunner

from quantd_server.api.token_file import TokenFile, entries_in
from quantd_server.cli.application import application
from quantd_server.planning.roots import Roots


def new(*words):
    return CliRunner().invoke(application, ["token", "new", *words])


def token_in(result) -> str:
    """The token, which standard error shows once."""
    (token,) = re.findall(r"quantd_[A-Za-z0-9_-]{43}", result.stderr)
    return token


def test_the_entry_is_for_the_file_and_the_token_for_its_holder(tmp_path):
    path = tmp_path / "tokens.toml"
    path.touch(mode=0o600)
    made = {}
    for name, role in (("ci", "submit"), ("dashboard", "read"), ("root", "admin")):
        result = new("--name", name, "--role", role)
        assert result.exit_code == 0
        made[name] = token_in(result)
        assert made[name] not in result.stdout
        with path.open("a") as file:  # as `>>` does
            file.write(result.stdout)
    roots = Roots.of((str(tmp_path),), (str(tmp_path),))
    file = TokenFile(str(path), roots, lambda *_, **__: None)
    assert [file.of_token(token).name for token in made.values()] == list(made)
    assert file.of_token(made["ci"]).role == "submit"


def test_folders_and_days(tmp_path):
    result = new(
        *("--name", "a", "--role", "submit", "--days", "30"),
        *("--source-root", str(tmp_path / 'o"d\\d é')),
        *("--output-root", str(tmp_path / "x"), "--output-root", str(tmp_path / "y")),
    )
    (entry,) = entries_in(result.stdout.encode()).token
    assert entry.sha256 == hashlib.sha256(token_in(result).encode()).hexdigest()
    assert entry.source_roots == (str(tmp_path / 'o"d\\d é'),)
    assert entry.output_roots == (str(tmp_path / "x"), str(tmp_path / "y"))
    left = entry.expires - dt.datetime.now(dt.UTC)
    assert dt.timedelta(days=29) < left <= dt.timedelta(days=30)


@pytest.mark.parametrize(
    "words",
    [
        ("--name", "a", "--role", "root"),
        ("--name", "", "--role", "read"),
        ("--name", "a b", "--role", "read"),
        ("--name", 'a"\nrole = "admin', "--role", "read"),
        ("--name", "a", "--role", "admin", "--source-root", "/a"),
        ("--name", "a"),
    ],
)
def test_what_makes_no_entry(words):
    result = new(*words)
    assert result.exit_code == 2
    assert not result.stdout
