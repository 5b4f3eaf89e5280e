"""The page for developers names what exists."""

from __future__ import annotations

import re

import pytest
from tests.docs.readme import REPOSITORY

PAGE = REPOSITORY / "docs" / "architecture.md"
TEXT = PAGE.read_text(encoding="utf-8")
SERVER = REPOSITORY / "server" / "quantd_server"
PATHS = sorted(set(re.findall(r"`((?:[\w.-]+/)+[\w.-]*|\w+\.py)`", TEXT)))


@pytest.mark.parametrize("path", PATHS)
def test_paths_exist(path):
    assert (SERVER / path).exists() or (REPOSITORY / path).exists()


def test_rooms_are_all_there():
    rooms = re.findall(r"^\| `(\w+)/` \|", TEXT, re.MULTILINE)
    folders = [entry.name for entry in SERVER.iterdir() if (entry / "__init__.py").exists()]
    assert sorted(rooms) == sorted(folders)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (PAGE.parent / target).exists(), target
