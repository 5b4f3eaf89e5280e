"""The table of overheads measures a real server: every kind, every call."""

from __future__ import annotations

from pathlib import Path

from bench import overhead
from tests import tiny_models


def test_every_kind_is_measured_as_often_as_asked(tmp_path: Path) -> None:
    model = tiny_models.write(tmp_path / "model")
    python = [program for program in overhead.PROGRAMS if program.language == "Python"]
    commands = list(overhead.build(tmp_path, python))
    [(language, measured)] = overhead.run(commands, model, tmp_path / "cache", calls=3, streams=2)
    for kind in overhead.KINDS:
        assert len(measured["calls"][kind]) == 3
        assert len(measured["streams"][kind]) == 2
        assert min(measured["calls"][kind] + measured["streams"][kind]) > 0
    assert measured["events"] > 2
    assert [row[0] for row in overhead.rows_of(language, measured)] == [
        "Python, client",
        "Python, stub",
        "Python, echo",
    ]
