"""`quantization_config` as published checkpoints have it, and as none should."""

from __future__ import annotations

import json
from typing import Any

from tests.conformance.definitions.writing import (
    ABSENT,
    INVALID,
    PARSE,
    answered,
    finding,
    refused,
    some,
    vector,
)
from tests.conformance.vector import Step, Vector
from tests.planning.config_parsing.blocks import BLOCKS, Block


def parsed(config: Any, reply: dict[str, Any]) -> Step:
    """A configuration, as a value or as text, and what it means."""
    text = config if isinstance(config, str) else json.dumps(config)
    return answered(PARSE, {"configJson": text}, reply)


def meaning(block: Block) -> dict[str, Any]:
    """What the answer has to say of a block."""
    findings = [finding("ERROR", reason) for reason in block.errors]
    findings += [finding("WARNING", reason) for reason in block.warnings]
    reply: dict[str, Any] = {
        "status": f"CONFIG_STATUS_{block.status}",
        "quantMethod": block.quant_method,
        "unknownFields": list(block.unknown),
        "findings": some(*findings) if findings else {"$none": {"severity": "SEVERITY_ERROR"}},
    }
    if block.method is None:
        return {**reply, "method": ABSENT, "canonicalJson": ABSENT}
    name = block.method.name.replace("_8bit", "8bit").replace("_4bit", "4bit")
    return {**reply, "method": {name: {}}, "canonicalJson": {"$json": block.canonical}}


TYPED = {
    "bitsandbytes-4bit": (
        {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": "bfloat16",
        },
        {
            "bitsandbytes4bit": {
                "bnb4bitQuantType": "FOUR_BIT_TYPE_NF4",
                "bnb4bitUseDoubleQuant": True,
                "bnb4bitComputeDtype": "COMPUTE_DTYPE_BFLOAT16",
                "bnb4bitQuantStorage": None,
                "blocksize": None,
            }
        },
    ),
    "gptq": (
        {"quant_method": "gptq", "bits": 3, "group_size": -1, "desc_act": True, "sym": True},
        {"gptq": {"bits": 3, "groupSize": -1, "descAct": True, "sym": True, "actGroupAware": None}},
    ),
    "awq": (
        {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "version": "gemm"},
        {
            "awq": {
                "bits": 4,
                "groupSize": 64,
                "zeroPoint": True,
                "format": "AWQ_FORMAT_GEMM",
                "nGrid": None,
            }
        },
    ),
    "aqlm": (
        {
            "quant_method": "aqlm",
            "num_codebooks": 2,
            "nbits_per_codebook": 8,
            "in_group_size": 8,
            "out_group_size": 1,
        },
        {
            "aqlm": {
                "numCodebooks": 2,
                "nbitsPerCodebook": 8,
                "inGroupSize": 8,
                "outGroupSize": 1,
                "maxEpochs": None,
            }
        },
    ),
    "gguf": (
        {"quant_method": "gguf", "file_type": "Q4_K_M", "pure": False},
        {"gguf": {"fileType": "GGUF_FILE_TYPE_Q4_K_M", "pure": False, "imatrixUri": None}},
    ),
}
"""Text and typed configuration; None: not set."""

GPTQ = {"quant_method": "gptq", "bits": 4}

FINDINGS = {
    "flags-exclusive": (
        {"load_in_8bit": True, "load_in_4bit": True},
        finding("ERROR", "BITSANDBYTES_FLAGS_EXCLUSIVE"),
    ),
    "flag-missing": (
        {"quant_method": "bitsandbytes", "load_in_4bit": False},
        finding("ERROR", "BITSANDBYTES_FLAG_MISSING"),
    ),
    "contradiction": (
        {**GPTQ, "desc_act": True, "bits": 4, "w_bit": 8, "wbits": 3},
        finding("ERROR", "CONFIG_CONTRADICTION"),
    ),
    "fields-ignored": (
        {**GPTQ, "group_size": 128, "dataset": "c4", "tokenizer": "x"},
        finding("INFO", "CONFIG_FIELDS_IGNORED"),
    ),
    "field-missing": (GPTQ, finding("INFO", "CONFIG_FIELD_MISSING")),
    "not-unicode": (
        '{"quant_method": "gptq", "bits": 4, "dataset": "\\ud800"}',
        finding("ERROR", "CONFIG_NOT_UNICODE"),
    ),
    "value-not-allowed": (
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf5"},
        finding("ERROR", "CONFIG_VALUE_NOT_ALLOWED", "bnb_4bit_quant_type"),
    ),
    "value-not-finite": (
        '{"quant_method": "gptq", "bits": 4, "damp_percent": 1e999}',
        finding("ERROR", "CONFIG_VALUE_NOT_FINITE", "damp_percent"),
    ),
    "wrong-type": (
        {"quant_method": "gptq", "bits": "four"},
        finding("ERROR", "CONFIG_WRONG_TYPE", "bits"),
    ),
    "format-assumed": (
        {**GPTQ, "group_size": 128, "sym": False},
        finding("WARNING", "GPTQ_FORMAT_ASSUMED"),
    ),
    "key-twice": (
        '{"quant_method": "gptq", "bits": 4, "bits": 4}',
        finding("ERROR", "CONFIG_DUPLICATE_KEY"),
    ),
    "too-deep": (
        '{"quant_method": "gptq", "a":' + "[" * 5000 + "]" * 5000 + "}",
        finding("ERROR", "CONFIG_NESTED_TOO_DEEPLY"),
    ),
    "unknown-field": (
        {**GPTQ, "group_sizes": 128},
        finding("ERROR", "UNKNOWN_FIELDS", "group_sizes"),
    ),
}


def with_many_faults() -> Step:
    """More findings than one answer lists."""
    config = {**GPTQ, **{f"unknown_{number}": number for number in range(80)}}
    last = finding("INFO", "MORE_FINDINGS")
    return parsed(config, {"findings": some(finding("ERROR", "UNKNOWN_FIELDS"), last)})


VECTORS: list[Vector] = [
    *(vector(f"parse/{block.name}", parsed(block.config, meaning(block))) for block in BLOCKS),
    *(
        vector(
            f"parse/typed-{name}",
            parsed(config, {"status": "CONFIG_STATUS_SERVED", "method": method}),
        )
        for name, (config, method) in TYPED.items()
    ),
    *(
        vector(f"parse/{name}", parsed(config, {"findings": some(expected)}))
        for name, (config, expected) in FINDINGS.items()
    ),
    vector(
        "parse/method-missing",
        parsed(
            {"modules_to_not_convert": ["lm_head"], "strange": 1},
            {"findings": some(finding("ERROR", "QUANT_METHOD_MISSING"))},
        ),
    ),
    vector(
        "parse/method-unknown",
        parsed(
            {"quant_method": "gptqq"},
            {
                "status": "CONFIG_STATUS_UNKNOWN",
                "findings": some(finding("ERROR", "QUANT_METHOD_UNKNOWN")),
            },
        ),
    ),
    vector(
        "parse/method-not-served",
        parsed(
            {"quant_method": "hqq"},
            {
                "status": "CONFIG_STATUS_KNOWN",
                "findings": some(finding("INFO", "QUANT_METHOD_NOT_SERVED")),
            },
        ),
    ),
    vector("parse/many-faults", with_many_faults()),
    vector(
        "parse/whole-config",
        parsed(
            {"model_type": "llama", "quantization_config": {**GPTQ, "group_sizes": 1}},
            {
                "unknownFields": ["quantization_config.group_sizes"],
                "findings": some(
                    finding("ERROR", "UNKNOWN_FIELDS", "quantization_config.group_sizes")
                ),
            },
        ),
    ),
    vector("parse/none", parsed({}, {"status": "CONFIG_STATUS_NOT_QUANTIZED", "findings": []})),
    vector(
        "parse/not-json",
        refused(PARSE, {"configJson": "[]"}, INVALID, "CONFIG_NOT_JSON", "config_json"),
    ),
]
