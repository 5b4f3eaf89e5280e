"""Builders of calibration and evaluation data."""

from __future__ import annotations

from pathlib import Path

import pytest

import quantd
from quantd import v1


def test_nothing_is_filled_in_that_the_server_knows_better():
    assert quantd.calibration() == v1.CalibrationConfig()
    assert quantd.evaluation() == v1.EvaluationConfig()


def test_every_field_has_an_argument():
    config = quantd.calibration(
        file=Path("/data/a.jsonl"),
        json_field="body",
        num_samples=4,
        sequence_length=64,
        seed=0,
        packing="truncate",
        apply_chat_template=False,
    )
    assert config == v1.CalibrationConfig(
        file=v1.CalibrationFile(uri="/data/a.jsonl", json_field="body"),
        num_samples=4,
        sequence_length=64,
        seed=0,
        packing=v1.PackingPolicy.PACKING_POLICY_TRUNCATE,
        apply_chat_template=False,
    )
    oneof = {"texts", "tokens", "file", "builtin"}
    assert {field.name for field, _ in config.ListFields()} | oneof == {
        field.name for field in v1.CalibrationConfig.DESCRIPTOR.fields
    }


@pytest.mark.parametrize("build", [quantd.calibration, quantd.evaluation])
def test_texts_and_tokens(build):
    assert build(iter(["a", "b"])).texts.texts == ["a", "b"]
    sequences = build(tokens=[[1, 2], range(3)], num_samples=2).tokens.sequences
    assert [list(sequence.ids) for sequence in sequences] == [[1, 2], [0, 1, 2]]


@pytest.mark.parametrize(
    "arguments",
    [
        {"texts": ["a"], "file": "/a.txt"},
        {"texts": ["a"], "tokens": [[1]]},
        {"texts": "a"},
        {"json_field": "body"},
        {"packing": "both"},
    ],
)
def test_arguments_that_make_no_sense(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments)).split("_")[0]):
        quantd.calibration(**arguments)
