"""The targets themselves: their changes get through the decoders, and they notice faults."""

from __future__ import annotations

import json
import random

import pytest
from google.protobuf.message import DecodeError
from tests.fuzz.corpus import TARGETS, target_named
from tests.fuzz.target import folder

from quantd import v1
from quantd_server.checkpoint.gguf_header import read_gguf_header
from quantd_server.checkpoint.safetensors_header import read_header
from quantd_server.errors import CheckpointError
from quantd_server.planning.config_parsing import parsing

ROUNDS = 300


def changed_inputs(name, seed, rounds=ROUNDS):
    """The inputs of a walk from a seed, each a change of the one before."""
    target, rng = target_named(name), random.Random(1)
    start = target.seeds()[seed]

    def replace_a_byte(data, max_size):
        return data[: len(data) // 2] + bytes([rng.randrange(256)]) + data[len(data) // 2 + 1 :]

    for _ in range(rounds):
        yield target.mutate(start, target.max_bytes, rng, replace_a_byte)


def share(name, seed, accepts) -> float:
    """The part of the changed inputs that ``accepts`` raises nothing for."""
    accepted = 0
    for data in changed_inputs(name, seed):
        try:
            accepts(data)
        except (CheckpointError, DecodeError, ValueError):
            continue
        accepted += 1
    return accepted / ROUNDS


@pytest.mark.parametrize("name", TARGETS)
def test_changes_fit_and_are_the_same_for_the_same_seed(name):
    seed = next(iter(target_named(name).seeds()))
    first, second = (list(changed_inputs(name, seed, 50)) for _ in range(2))
    assert first == second
    assert len(set(first)) > 5
    assert max(map(len, first)) <= target_named(name).max_bytes


def test_requests_get_through_the_decoder():
    target = target_named("quantization_service")
    seed = next(
        name
        for name in target.seeds()
        if name.startswith("PlanQuantization-") and "empty" not in name
    )
    request = v1.PlanQuantizationRequest.FromString
    assert share("quantization_service", seed, lambda data: request(data[1:])) > 0.8


def test_headers_get_through_the_reader():
    path = folder() / "changed.safetensors"

    def accepts(data):
        path.write_bytes(data)
        read_header(path)

    # Most changes of so strict a format are faults.
    assert share("safetensors", "every", accepts) > 0.05


def test_gguf_headers_get_through_the_reader():
    path = folder() / "changed.gguf"

    def accepts(data):
        path.write_bytes(data)
        read_gguf_header(path)

    assert share("gguf", "model", accepts) > 0.2


def test_configurations_stay_json():
    seed = next(iter(target_named("config_json").seeds()))
    assert share("config_json", seed, json.loads) > 0.8


def test_a_fault_behind_a_request_is_noticed(monkeypatch):
    target = target_named("quantization_service")
    seed = next(
        name for name in target.seeds() if name.startswith("ParseConfig-") and "empty" not in name
    )
    target.run(target.seeds()[seed])

    def broken(_text):
        raise KeyError("broken")

    monkeypatch.setattr(parsing, "parse_config", broken)
    with pytest.raises(AssertionError, match="incident"):
        target.run(target.seeds()[seed])
