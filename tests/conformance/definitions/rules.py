"""The rules that the messages themselves carry, each broken alone."""

from __future__ import annotations

from typing import Any

from tests.conformance.definitions.writing import (
    CANCEL,
    GET,
    INSPECT,
    INVALID,
    LIST,
    NF4,
    PARSE,
    PLAN,
    QUANTIZE,
    aqlm,
    awq,
    gguf,
    gptq,
    refused,
    spec,
    vector,
)
from tests.conformance.vector import Step, Vector


def rule(rpc: str, request: dict[str, Any], reason: str, *fields: str) -> Step:
    """A request that breaks one rule."""
    return refused(rpc, request, INVALID, reason, *fields)


def planned(method: dict[str, Any], reason: str, *fields: str, **members: Any) -> Step:
    """A plan whose spec breaks one rule."""
    paths = [f"spec.{field}" for field in fields]
    return rule(PLAN, {"spec": spec("tiny", method, **members)}, reason, *paths)


def eight_bit(**members: Any) -> dict[str, Any]:
    """A configuration of LLM.int8."""
    return {"bitsandbytes8bit": members}


BROKEN: dict[str, Step] = {
    "awq-zero-point": planned(awq(zeroPoint=False), "AWQ_GEMM_NEEDS_ZERO_POINT", "method.awq"),
    "fp16-weight": planned(
        eight_bit(llmInt8HasFp16Weight=True),
        "BITSANDBYTES_8BIT_HAS_FP16_WEIGHT",
        "method.bitsandbytes_8bit.llm_int8_has_fp16_weight",
    ),
    "double-finite": planned(
        eight_bit(llmInt8Threshold="Infinity"),
        "DOUBLE_FINITE",
        "method.bitsandbytes_8bit.llm_int8_threshold",
    ),
    "double-gte": planned(
        eight_bit(llmInt8Threshold=-1.0),
        "DOUBLE_GTE",
        "method.bitsandbytes_8bit.llm_int8_threshold",
    ),
    "double-gte-lt": planned(
        gptq(dampAutoIncrement=1.0), "DOUBLE_GTE_LT", "method.gptq.damp_auto_increment"
    ),
    "double-gte-lte": planned(gptq(mse=9.0), "DOUBLE_GTE_LTE", "method.gptq.mse"),
    "double-gt-lt": planned(gptq(dampPercent=0.0), "DOUBLE_GT_LT", "method.gptq.damp_percent"),
    "double-gt-lte": planned(aqlm(lr=0.0), "DOUBLE_GT_LTE", "method.aqlm.lr"),
    "enum-defined": planned(
        {"gguf": {"fileType": 999}}, "ENUM_DEFINED_ONLY", "method.gguf.file_type"
    ),
    "enum-not-in": planned(
        NF4,
        "ENUM_NOT_IN",
        "serve_targets[0].engine",
        serveTargets=[{"engine": "ENGINE_UNSPECIFIED"}],
    ),
    "gptq-groups": planned(
        {"gptq": {"groupSize": -1, "actGroupAware": True}},
        "GPTQ_ACT_GROUP_AWARE_NEEDS_GROUPS",
        "method.gptq",
    ),
    "gptq-orders": planned(
        gptq(descAct=True, actGroupAware=True), "GPTQ_ACT_ORDER_EXCLUSIVE", "method.gptq"
    ),
    "gptq-asymmetric": planned(
        gptq(sym=False, format="GPTQ_FORMAT_GPTQ"), "GPTQ_ASYMMETRIC_NEEDS_V2", "method.gptq"
    ),
    "gptq-static-groups": planned(
        gptq(maxShrink=0.5, staticGroups=False),
        "GPTQ_MAX_SHRINK_NEEDS_STATIC_GROUPS",
        "method.gptq",
    ),
    "gptq-range-search": planned(
        gptq(maxShrink=0.5, mse=2.0), "GPTQ_ONE_RANGE_SEARCH", "method.gptq"
    ),
    "int32-in": planned({"gptq": {"groupSize": 100}}, "INT32_IN", "method.gptq.group_size"),
    "map-max-pairs": rule(
        LIST,
        {"labels": {f"label-{number}": "" for number in range(65)}},
        "MAP_MAX_PAIRS",
        "labels",
    ),
    "output-required": rule(QUANTIZE, {"spec": spec("tiny", NF4)}, "QUANTIZE_OUTPUT_URI_REQUIRED"),
    "repeated-max-items": rule(
        LIST, {"states": ["JOB_STATE_QUEUED"] * 17}, "REPEATED_MAX_ITEMS", "states"
    ),
    "repeated-min-items": planned(
        gptq(),
        "REPEATED_MIN_ITEMS",
        "calibration.tokens.sequences",
        calibration={"tokens": {"sequences": []}},
    ),
    "repeated-unique": planned(
        eight_bit(llmInt8SkipModules=["lm_head", "lm_head"]),
        "REPEATED_UNIQUE",
        "method.bitsandbytes_8bit.llm_int8_skip_modules",
    ),
    "required": rule(PLAN, {}, "REQUIRED", "spec"),
    "required-oneof": planned({}, "REQUIRED", "method.config"),
    "string-max-bytes": rule(
        PARSE, {"configJson": "é" * (1 << 19) + "x"}, "STRING_MAX_BYTES", "config_json"
    ),
    "string-max-len": rule(
        CANCEL, {"name": "jobs/a", "reason": "x" * 1025}, "STRING_MAX_LEN", "reason"
    ),
    "string-min-len": rule(INSPECT, {"sourceUri": ""}, "STRING_MIN_LEN", "source_uri"),
    "string-pattern": rule(GET, {"name": "job/1"}, "STRING_PATTERN", "name"),
    "string-uuid": rule(
        QUANTIZE,
        {"spec": spec("tiny", NF4, "out"), "requestId": "one"},
        "STRING_UUID",
        "request_id",
    ),
    "uint32-gte-lte": planned(awq(nGrid=0), "UINT32_GTE_LTE", "method.awq.n_grid"),
    "uint32-in": planned(gptq(bits=5), "UINT32_IN", "method.gptq.bits"),
    "uint32-lte": rule(
        INSPECT,
        {"sourceUri": "${sources}/tiny", "pageSize": 10_001},
        "UINT32_LTE",
        "page_size",
    ),
    "uint64-gte": planned(NF4, "UINT64_GTE", "max_shard_size", maxShardSize="1"),
    "uint64-gte-lte": rule(
        INSPECT,
        {"sourceUri": "${sources}/tiny", "contextLength": "0"},
        "UINT64_GTE_LTE",
        "context_length",
    ),
}

SEVERAL = refused(
    QUANTIZE,
    {"spec": {"method": gptq(bits=5, groupSize=100)}, "requestId": "one"},
    INVALID,
    "STRING_MIN_LEN",
)
SEVERAL["expect"]["error"] = {
    "code": INVALID,
    "violations": {
        "$some": [
            {"field": "spec.source_uri", "reason": "STRING_MIN_LEN"},
            {"field": "spec.method.gptq.bits", "reason": "UINT32_IN"},
            {"field": "spec.method.gptq.group_size", "reason": "INT32_IN"},
            {"field": "request_id", "reason": "STRING_UUID"},
            {"reason": "QUANTIZE_OUTPUT_URI_REQUIRED"},
        ]
    },
}

VECTORS: list[Vector] = [
    *(vector(f"rule/{name}", step) for name, step in BROKEN.items()),
    vector("rule/all-at-once", SEVERAL),
    vector(
        "rule/gguf-pattern",
        planned(
            gguf("Q8_0", tensorTypes=[{"pattern": "", "type": "GGML_TYPE_F16"}]),
            "STRING_MIN_LEN",
            "method.gguf.tensor_types[0].pattern",
        ),
    ),
]
