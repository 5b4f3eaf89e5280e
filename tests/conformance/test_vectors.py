"""The vectors are what their source says, and leave out nothing that a client can meet."""

from __future__ import annotations

import pytest
from tests.conformance.definitions.coverage import WITHOUT_VECTOR
from tests.conformance.fixtures import FIXTURES, names_in
from tests.conformance.generate import texts
from tests.conformance.matching import matches
from tests.conformance.vector import FOLDER, METHODS, all_steps, calls, load, reasons_in

from quantd_server.reasons import REASONS

VECTORS = load()


def test_files_are_what_their_source_says():
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    assert there == texts(), "run make generate"


def test_every_method_has_vectors():
    called = [step["call"] for vector in VECTORS for step in calls(vector)]
    assert set(called) == set(METHODS)
    assert len(VECTORS) >= 120


def test_every_reason_has_a_vector_or_a_cause_for_none():
    expected = {
        reason
        for vector in VECTORS
        for step in all_steps(vector.steps)
        for reason in reasons_in(step.get("expect", {}))
    }
    assert expected | WITHOUT_VECTOR.keys() == set(REASONS)
    assert not expected & WITHOUT_VECTOR.keys()


def test_no_fixture_is_out_of_use():
    mentioned = set().union(*(names_in(vector) for vector in VECTORS))
    attacks = {name for name in FIXTURES if name.startswith("safetensors-") or ".gguf" in name}
    assert FIXTURES.keys() - attacks == mentioned - attacks


@pytest.mark.parametrize(
    ("expected", "actual", "is_match"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {}, False),
        ({"a": 1}, {"a": "1"}, True),
        ({"a": True}, {"a": 1}, False),
        ({"a": 0.1}, {"a": 0.1 + 1e-13}, True),
        ({"a": None}, {}, True),
        ({"a": None}, {"a": 0}, False),
        ([1], [1, 2], False),
        ([{"a": 1}], [{"a": 1, "b": 1}], True),
        ({"$some": [2]}, [1, 2], True),
        ({"$some": [3]}, [1, 2], False),
        ({"$some": [3]}, None, False),
        ({"$none": {"a": 1}}, [{"a": 2}], True),
        ({"$none": {"a": 1}}, [{"a": 2}, {"a": 1}], False),
        ({"$length": 2}, [1, 2], True),
        ({"$length": 2}, None, False),
        ({"$between": [1, 2]}, "1.5", True),
        ({"$between": [1, 2]}, 2.1, False),
        ({"$between": [1, 2]}, None, False),
        ({"$text": "^a"}, "ab", True),
        ({"$text": "^a"}, "b", False),
        ({"$json": {"a": [1]}}, '{ "a": [1]}', True),
        ({"$json": {"a": [1]}}, "{", False),
        ({"$absent": True}, [], True),
        ({"$absent": True}, [0], False),
    ],
)
def test_what_matches(expected, actual, is_match):
    assert matches(expected, actual) is is_match
