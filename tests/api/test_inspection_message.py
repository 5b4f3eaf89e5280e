"""Whatever numbers a checkpoint's headers hold, its description can be sent."""

from __future__ import annotations

import json

import pytest
from tests import hosts, tiny_models
from tests.checkpoint.builders import gguf_bytes, pair, tensor, text

from quantd import v1
from quantd_server.api.translation import to_message
from quantd_server.planning.inspection import inspect
from quantd_server.planning.roots import Roots


def answered(path) -> v1.InspectCheckpointResponse:
    roots = Roots.of((str(path.parent),), ())
    report = inspect(str(path), roots, hosts.TWO_H100, context_length=10**8, offset=0, page_size=0)
    return to_message(report, v1.InspectCheckpointResponse)


@pytest.mark.parametrize("value", [2**31 - 1, 2**31, 2**64, 10**400, -1, 1.5, True, None, [], {}])
def test_a_config_with_any_numbers(tmp_path, value):
    source = tiny_models.write(tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    for name in (
        "head_dim",
        "hidden_size",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "vocab_size",
    ):
        config[name] = value
    (source / "config.json").write_text(json.dumps(config))
    answer = answered(source)
    assert answer.checkpoint.block_count in (0, 2)
    assert len(answer.loads) == 10


@pytest.mark.parametrize("value", [0, 2**31 - 1, 2**63, 2**64 - 1])
def test_a_gguf_header_with_any_numbers(tmp_path, value):
    keys = ("block_count", "attention.head_count", "attention.key_length", "context_length")
    pairs = [pair("general.architecture", "string", text("odd"))]
    pairs += [pair(f"odd.{key}", "uint64", value.to_bytes(8, "little")) for key in keys]
    path = tmp_path / "odd.gguf"
    path.write_bytes(gguf_bytes(pairs, [tensor()], bytes(32)))
    answer = answered(path)
    assert answer.checkpoint.block_count == (value if value < 2**31 else 0)
    llama = next(load for load in answer.loads if load.engine == v1.Engine.ENGINE_LLAMA_CPP)
    assert llama.loadable == (answer.loads[0].kv_cache_bytes == 0)
