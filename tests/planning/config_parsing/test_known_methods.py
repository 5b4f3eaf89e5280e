"""The methods that quantd does not serve are known by name."""

from __future__ import annotations

import json

import pytest

from quantd_server.planning.config_parsing.known_methods import KNOWN_METHODS
from quantd_server.planning.config_parsing.parsing import parse_config
from quantd_server.planning.config_parsing.recognition import SERVED_NAMES, TABLES

OF_TRANSFORMERS = [
    *("aqlm", "auto-round", "awq", "bitnet", "bitsandbytes_4bit", "bitsandbytes_8bit"),
    *("compressed-tensors", "eetq", "fbgemm_fp8", "fouroversix", "fp8", "fp_quant", "gemma"),
    *("gguf", "gptq", "higgs", "hqq", "metal", "mxfp4", "mxfp8", "nvfp4", "quanto", "quark"),
    *("sinq", "spqr", "torchao", "vptq"),
]
"""``AUTO_QUANTIZATION_CONFIG_MAPPING`` of transformers 5.17."""


@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_a_name_of_transformers_is_served_or_known(name: str):
    parsed = parse_config(json.dumps({"quant_method": name}))
    served = name in TABLES or name in SERVED_NAMES
    assert parsed.status == ("SERVED" if served else "KNOWN")
    assert parsed.quant_method == name.removesuffix("_4bit").removesuffix("_8bit")


@pytest.mark.parametrize("name", KNOWN_METHODS)
def test_a_known_method_is_reported_as_not_served(name: str):
    parsed = parse_config(json.dumps({"quant_method": name.upper(), "whatever": [1]}))
    (finding,) = parsed.findings
    assert (parsed.status, parsed.quant_method, parsed.method) == ("KNOWN", name, None)
    assert finding.reason == "QUANT_METHOD_NOT_SERVED"
    assert finding.kind == "unimplemented"
    assert parsed.required_packages


def test_an_unknown_name_lists_those_that_are_known():
    (finding,) = parse_config('{"quant_method": "q4_best"}').findings
    for name in (*SERVED_NAMES, *KNOWN_METHODS):
        assert name in finding.message


@pytest.mark.slow
def test_the_names_of_transformers_are_complete():
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    assert sorted(AUTO_QUANTIZATION_CONFIG_MAPPING) == OF_TRANSFORMERS
