"""Blocks of real checkpoints, alone and in a whole config.json."""

from __future__ import annotations

import json

import pytest
from tests.planning.config_parsing.blocks import BLOCKS, Block

from quantd_server.errors import Severity
from quantd_server.planning.config_parsing.parsed import ParsedConfig
from quantd_server.planning.config_parsing.parsing import parse_config


def reasons(parsed: ParsedConfig, severity: Severity) -> list[str]:
    return sorted(f.reason for f in parsed.findings if f.severity is severity)


def test_there_are_enough_and_each_is_there_once():
    assert len({block.name for block in BLOCKS}) == len(BLOCKS) >= 60


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_a_block_means_what_it_says(block: Block):
    parsed = parse_config(json.dumps(block.config))
    assert reasons(parsed, Severity.ERROR) == sorted(block.errors)
    assert reasons(parsed, Severity.WARNING) == sorted(block.warnings)
    assert (parsed.status, parsed.quant_method) == (block.status, block.quant_method)
    assert parsed.method == block.method
    assert parsed.unknown_fields == block.unknown
    if block.method is None:
        assert parsed.canonical_json == ""
    else:
        assert json.loads(parsed.canonical_json) == block.canonical
    for secret in ("private", "/home", "wikitext", "gguf_file", "gptqmodel:"):
        assert secret not in parsed.canonical_json
    for finding in parsed.findings:
        assert "private" not in finding.message
        if finding.severity is Severity.ERROR:
            assert finding.field
            assert finding.remedy


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_canonical_json_means_the_same(block: Block):
    if block.method is None:
        return
    canonical = parse_config(json.dumps(block.config)).canonical_json
    again = parse_config(canonical)
    assert again.method == block.method
    assert again.canonical_json == canonical
    keys = list(json.loads(canonical))
    assert keys == sorted(keys)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
@pytest.mark.parametrize("place", ["quantization_config", "text_config.quantization_config"])
def test_a_whole_config_json(block: Block, place: str):
    config = {"model_type": "llama", "hidden_size": 64, "text_config": {"hidden_size": 64}}
    holder = config["text_config"] if place.startswith("text") else config
    holder["quantization_config"] = block.config
    alone, inside = parse_config(json.dumps(block.config)), parse_config(json.dumps(config))
    assert inside.method == alone.method
    assert inside.status == alone.status
    assert inside.unknown_fields == tuple(f"{place}.{path}" for path in alone.unknown_fields)
    for outer, inner in zip(alone.findings, inside.findings, strict=True):
        assert inner.reason == outer.reason
        assert inner.field in (f"{place}.{outer.field}", place, "")


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"quantization_config": null, "model_type": "llama"}',
        '{"quantization_config": {}}',
        '{"model_type": "llama", "bits": 4}',
        '{"architectures": ["LlamaForCausalLM"], "text_config": {"hidden_size": 1}}',
    ],
)
def test_no_configuration_is_not_quantized(text: str):
    parsed = parse_config(text)
    assert parsed == ParsedConfig(status="NOT_QUANTIZED")


def test_a_name_beside_that_of_a_model_is_not_overlooked():
    parsed = parse_config('{"model_type": "llama", "quant_method": "gptq", "bits": 4}')
    assert parsed.status == "SERVED"
    assert parsed.unknown_fields == ("model_type",)


def test_the_packages_of_a_reader_are_named_with_their_versions():
    packages = parse_config('{"load_in_4bit": true}').required_packages
    versions = {package.name: package.version for package in packages}
    assert {"torch", "transformers", "bitsandbytes"} <= versions.keys()
    assert versions["bitsandbytes"].startswith("0.")
    packages = parse_config('{"quant_method": "hqq"}').required_packages
    assert [p.version for p in packages if p.name == "hqq"] == [""]
