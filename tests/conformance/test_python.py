"""The vectors, played by the runner of the Python client."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from tests.conformance.languages import LANGUAGES, build
from tests.conformance.matrix import FAILED, SKIPPED, Stage
from tests.conformance.vector import Vector, load

VECTORS = load()


@pytest.fixture(scope="module")
def stage():
    # Short paths: those of unix sockets end at some hundred characters.
    with tempfile.TemporaryDirectory(prefix="quantd-") as name:
        scratch, sources = Path(name) / "python", Path(name) / "sources"
        scratch.mkdir()
        sources.mkdir()
        with Stage(build(LANGUAGES["python"], scratch), scratch, sources) as stage:
            yield stage


@pytest.mark.parametrize(
    "vector",
    [
        pytest.param(vector, id=vector.name, marks=[pytest.mark.slow] if vector.is_slow else [])
        for vector in VECTORS
    ],
)
def test_vector(stage: Stage, vector: Vector):
    outcome = stage.play(vector)
    if outcome.mark == SKIPPED:
        pytest.skip(outcome.details[0])
    assert outcome.mark != FAILED, "\n".join(outcome.details)
