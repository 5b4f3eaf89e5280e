"""What transformers' configuration classes take though it is wrong, and quantd does not."""

from __future__ import annotations

import json
import warnings

import pytest

from quantd_server.errors import Finding, Severity
from quantd_server.planning.config_parsing.parsing import parse_config

GPTQ = {"quant_method": "gptq", "bits": 4}
AWQ = {"quant_method": "awq"}
AQLM = {"quant_method": "aqlm"}
FOUR = {"load_in_4bit": True}
EIGHT = {"load_in_8bit": True}
GGUF = {"quant_method": "gguf"}

# (configuration, field at fault, reason)
WRONG = [
    ({"quant_method": "bitsandbytes"}, "load_in_4bit", "BITSANDBYTES_FLAG_MISSING"),
    ({**FOUR, "bnb_4bit_quant_type": "foo"}, "bnb_4bit_quant_type", "CONFIG_VALUE_NOT_ALLOWED"),
    ({**EIGHT, "llm_int8_threshold": -1.0}, "llm_int8_threshold", "CONFIG_VALUE_NOT_ALLOWED"),
    (
        {**EIGHT, "llm_int8_threshold": float("nan")},
        "llm_int8_threshold",
        "CONFIG_VALUE_NOT_FINITE",
    ),
    (
        {**FOUR, "bnb_4bit_compute_dtype": "int8"},
        "bnb_4bit_compute_dtype",
        "CONFIG_VALUE_NOT_ALLOWED",
    ),
    (
        {**FOUR, "bnb_4bit_quant_storage": "int64"},
        "bnb_4bit_quant_storage",
        "CONFIG_VALUE_NOT_ALLOWED",
    ),
    ({**FOUR, "llm_int8_skip_modules": [1]}, "llm_int8_skip_modules[0]", "CONFIG_WRONG_TYPE"),
    ({**EIGHT, "bnb_4bit_quant_type": "nf4"}, "bnb_4bit_quant_type", "CONFIG_VALUE_NOT_ALLOWED"),
    (
        {**EIGHT, "bnb_4bit_use_double_quant": True},
        "bnb_4bit_use_double_quant",
        "CONFIG_VALUE_NOT_ALLOWED",
    ),
    (
        {**EIGHT, "bnb_4bit_compute_dtype": "bfloat16"},
        "bnb_4bit_compute_dtype",
        "CONFIG_VALUE_NOT_ALLOWED",
    ),
    ({**FOUR, "bnb_4bit_quant_typ": "nf4"}, "bnb_4bit_quant_typ", "UNKNOWN_FIELDS"),
    ({**GPTQ, "group_size": 100}, "group_size", "CONFIG_VALUE_NOT_ALLOWED"),
    ({**GPTQ, "format": "banana"}, "format", "CONFIG_VALUE_NOT_ALLOWED"),
    ({**GPTQ, "checkpoint_format": "banana"}, "checkpoint_format", "CONFIG_VALUE_NOT_ALLOWED"),
    ({**GPTQ, "backend": "banana"}, "backend", "CONFIG_VALUE_NOT_ALLOWED"),
    ({**GPTQ, "dataset": []}, "dataset", "CONFIG_VALUE_NOT_ALLOWED"),
    ({**GPTQ, "dataset": [1, 2]}, "dataset[0]", "CONFIG_WRONG_TYPE"),
    ({**GPTQ, "damp_precent": 0.1}, "damp_precent", "UNKNOWN_FIELDS"),
    ({**GPTQ, "batch_size": 0}, "batch_size", "CONFIG_VALUE_NOT_ALLOWED"),
    (
        {**GPTQ, "group_size": -1, "act_group_aware": True},
        "act_group_aware",
        "GPTQ_ACT_GROUP_AWARE_NEEDS_GROUPS",
    ),
    (
        {**GPTQ, "desc_act": True, "act_group_aware": True},
        "act_group_aware",
        "GPTQ_ACT_ORDER_EXCLUSIVE",
    ),
    ({**AWQ, "bits": 7}, "bits", "CONFIG_VALUE_NOT_ALLOWED"),
    ({**AWQ, "bits": "four"}, "bits", "CONFIG_WRONG_TYPE"),
    ({**AWQ, "group_size": 0}, "group_size", "CONFIG_VALUE_NOT_ALLOWED"),
    ({**AWQ, "zero_pont": True}, "zero_pont", "UNKNOWN_FIELDS"),
    ({**AQLM, "in_group_size": 0}, "in_group_size", "CONFIG_VALUE_NOT_ALLOWED"),
    ({**AQLM, "in_group_size": -8}, "in_group_size", "CONFIG_VALUE_NOT_ALLOWED"),
    ({**AQLM, "nbits_per_codebook": 33}, "nbits_per_codebook", "CONFIG_VALUE_NOT_ALLOWED"),
    ({**AQLM, "num_codebooks": True}, "num_codebooks", "CONFIG_WRONG_TYPE"),
    ({**AQLM, "codebooks": 1}, "codebooks", "UNKNOWN_FIELDS"),
    ({**GGUF, "anything": 1}, "anything", "UNKNOWN_FIELDS"),
    ({**GGUF, "file_type": "Q4"}, "file_type", "CONFIG_VALUE_NOT_ALLOWED"),
]

# What transformers refuses too.
REFUSED_BY_BOTH = [
    ({**FOUR, **EIGHT}, "load_in_4bit"),
    ({**FOUR, "bnb_4bit_compute_dtype": "foo"}, "bnb_4bit_compute_dtype"),
    ({**FOUR, "bnb_4bit_quant_storage": "int16"}, "bnb_4bit_quant_storage"),
    ({**GPTQ, "bits": 5}, "bits"),
    ({**GPTQ, "group_size": 0}, "group_size"),
    ({**GPTQ, "damp_percent": 1.0}, "damp_percent"),
    ({**GPTQ, "damp_percent": float("nan")}, "damp_percent"),
    ({**GPTQ, "dataset": "pileval"}, "dataset"),
    ({**AWQ, "format": "xyz"}, "format"),
    ({**AWQ, "format": "marlin"}, "format"),
    ({**AQLM, "in_group_size": "8"}, "in_group_size"),
]

# What it takes rightly.
RIGHT = [
    FOUR,
    EIGHT,
    {**EIGHT, "llm_int8_threshold": 0.0},
    {**FOUR, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16"},
    *({**FOUR, "bnb_4bit_quant_storage": storage} for storage in ("uint8", "int8", "float64")),
    {**FOUR, "llm_int8_skip_modules": ["lm_head"]},
    *({**GPTQ, "bits": bits} for bits in (2, 3, 4, 8)),
    {**GPTQ, "group_size": -1, "act_group_aware": False},
    {**GPTQ, "desc_act": True, "act_group_aware": False},
    {**GPTQ, "dataset": ["text"]},
    {**GPTQ, "dataset": "c4-new"},
    {**GPTQ, "damp_percent": 0.01, "backend": "marlin", "format": "gptq_v2"},
    {**AWQ, "bits": 4, "group_size": 128},
    *({**AWQ, "format": name} for name in ("gemm", "gemv", "gemv_fast", "llm-awq")),
    {**AQLM, "in_group_size": 8, "num_codebooks": 2, "nbits_per_codebook": 8},
    {**GGUF, "dequantize": True},
]


def errors(config: dict) -> list[Finding]:
    findings = parse_config(json.dumps(config)).findings
    return [finding for finding in findings if finding.severity is Severity.ERROR]


def transformers_takes(config: dict) -> bool:
    from transformers import AqlmConfig, AwqConfig, BitsAndBytesConfig, GPTQConfig
    from transformers.utils.quantization_config import GgufConfig

    classes = {"gptq": GPTQConfig, "awq": AwqConfig, "aqlm": AqlmConfig, "gguf": GgufConfig}
    fields = {key: value for key, value in config.items() if key != "quant_method"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            classes.get(config.get("quant_method"), BitsAndBytesConfig).from_dict(fields)
        except Exception:  # noqa: BLE001 - it raises ValueError, TypeError and AttributeError
            return False
    return True


@pytest.mark.parametrize(("config", "field", "reason"), WRONG, ids=lambda v: str(v)[:70])
def test_what_is_wrong_is_refused_with_its_field_and_a_remedy(config, field, reason):
    for prefix, text in (("", config), ("quantization_config.", {"quantization_config": config})):
        (finding,) = errors(text)
        assert (finding.field, finding.reason) == (prefix + field, reason)
        assert finding.message
        assert finding.remedy
    parsed = parse_config(json.dumps(config))
    assert parsed.status == "SERVED"
    assert parsed.method is None
    assert (parsed.unknown_fields == (field,)) is (reason == "UNKNOWN_FIELDS")


@pytest.mark.parametrize(("config", "field"), REFUSED_BY_BOTH, ids=lambda v: str(v)[:70])
def test_what_transformers_refuses_is_refused(config, field):
    assert [finding.field for finding in errors(config)] == [field]


@pytest.mark.parametrize("config", RIGHT, ids=lambda v: str(v)[:70])
def test_what_is_right_is_accepted(config):
    assert errors(config) == []
    assert parse_config(json.dumps(config)).method is not None


def test_an_integer_will_do_for_a_threshold():
    """Where 6.0 is meant; transformers refuses 6, but JSON does not tell the two apart."""
    method = parse_config('{"load_in_8bit": true, "llm_int8_threshold": 6}').method
    assert method is not None
    assert method.value.llm_int8_threshold == 6.0


def test_a_misspelt_field_is_recognized():
    (finding,) = errors({**GPTQ, "damp_precent": 0.1})
    assert "did you mean damp_percent?" in finding.message


@pytest.mark.slow
def test_transformers_still_takes_what_the_table_says():
    # It takes int64 from Python only, as torch.int64.
    for config, field, _ in WRONG:
        if field != "bnb_4bit_quant_storage":
            assert transformers_takes(config), config
    for config, _ in REFUSED_BY_BOTH:
        assert not transformers_takes(config), config
    for config in RIGHT:
        assert transformers_takes(config), config
