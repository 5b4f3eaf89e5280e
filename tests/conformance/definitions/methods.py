"""What planning finds about a method and a model: one finding a vector."""

from __future__ import annotations

from typing import Any

from tests.conformance.definitions.plans import found
from tests.conformance.definitions.writing import (
    INT8,
    NF4,
    TOKENS,
    aqlm,
    awq,
    finding,
    gguf,
    gptq,
    vector,
)
from tests.conformance.vector import Step, Vector


def warned(source: str, method: dict[str, Any], reason: str, *more: str, **members: Any) -> Step:
    """A plan with a warning."""
    return found(source, method, finding("WARNING", reason, *more), **members)


def stopped(source: str, method: dict[str, Any], reason: str, *more: str, **members: Any) -> Step:
    """A plan with an error."""
    return found(source, method, finding("ERROR", reason, *more), **members)


def eight_bit(**members: Any) -> dict[str, Any]:
    """A configuration of LLM.int8."""
    return {"bitsandbytes8bit": members}


def four_bit(**members: Any) -> dict[str, Any]:
    """A configuration of NF4."""
    return {"bitsandbytes4bit": {"bnb4bitQuantType": "FOUR_BIT_TYPE_NF4", **members}}


VECTORS: list[Vector] = [
    vector(f"method/{name}", step)
    for name, step in {
        "aqlm-bits-high": warned(
            "wide", aqlm(numCodebooks=4, nbitsPerCodebook=8), "AQLM_BITS_HIGH"
        ),
        "aqlm-bits-too-many": stopped(
            "wide",
            aqlm(numCodebooks=16, nbitsPerCodebook=8),
            "AQLM_BITS_TOO_MANY",
        ),
        "aqlm-takes-long": warned("slow", aqlm(nbitsPerCodebook=8), "AQLM_TAKES_LONG"),
        "aqlm-too-few-groups": stopped("tiny", {"aqlm": {}}, "AQLM_TOO_FEW_GROUPS"),
        "aqlm-group": stopped(
            "tiny",
            aqlm(inGroupSize=24),
            "GROUP_SIZE_DOES_NOT_DIVIDE",
            "spec.method.aqlm.in_group_size",
        ),
        "architecture-not-recognized": warned(
            "unknown-architecture", NF4, "ARCHITECTURE_NOT_RECOGNIZED"
        ),
        "architecture-without-scale-mapping": stopped(
            "unknown-architecture",
            gptq(awqScaling=True),
            "ARCHITECTURE_WITHOUT_SCALE_MAPPING",
            "spec.method.gptq.awq_scaling",
            calibration=TOKENS,
        ),
        "awq-format": stopped(
            "tiny",
            awq(format="AWQ_FORMAT_GEMV"),
            "AWQ_FORMAT_NOT_WRITTEN",
            "spec.method.awq.format",
        ),
        "blocks-cross-rows": warned("crossing", NF4, "BLOCKS_CROSS_ROWS"),
        "experts-not-quantized": warned("mixture", NF4, "EXPERTS_NOT_QUANTIZED"),
        "gptq-group": stopped(
            "tiny",
            {"gptq": {}},
            "GROUP_SIZE_DOES_NOT_DIVIDE",
            "spec.method.gptq.group_size",
            calibration=TOKENS,
        ),
        "awq-group": stopped(
            "tiny", {"awq": {}}, "GROUP_SIZE_DOES_NOT_DIVIDE", "spec.method.awq.group_size"
        ),
        "nothing-to-quantize": stopped(
            "tiny", eight_bit(llmInt8SkipModules=["model"]), "NOTHING_TO_QUANTIZE"
        ),
        "output-head-tied": warned(
            "tiny", gptq(lmHead=True), "OUTPUT_HEAD_TIED", calibration=TOKENS
        ),
        "quant-storage": stopped(
            "odd",
            four_bit(bnb4bitQuantStorage="QUANT_STORAGE_FLOAT64"),
            "QUANT_STORAGE_UNFIT",
        ),
        "shape-not-packable": stopped("odd", {"gptq": {"groupSize": -1}}, "SHAPE_NOT_PACKABLE"),
        "name-taken": stopped("name-taken", INT8, "TENSOR_NAME_TAKEN"),
        "weight-type": stopped("int-weight", NF4, "WEIGHT_TYPE_NOT_QUANTIZABLE"),
        "pattern-invalid": stopped(
            "tiny",
            gptq(dynamic=[{"pattern": "("}]),
            "PATTERN_INVALID",
            "spec.method.gptq.dynamic[0].pattern",
        ),
        "pattern-unmatched": warned(
            "tiny",
            eight_bit(llmInt8SkipModules=["no_such_module"]),
            "PATTERN_UNMATCHED",
        ),
        "gguf-pattern": stopped(
            "tiny",
            gguf("Q8_0", tensorTypes=[{"pattern": "(", "type": "GGML_TYPE_F16"}]),
            "PATTERN_INVALID",
        ),
        "device": stopped(
            "tiny", NF4, "DEVICE_NOT_AVAILABLE", "spec.device", device="DEVICE_KIND_MPS"
        ),
        "rule-asymmetric": stopped(
            "tiny",
            gptq(format="GPTQ_FORMAT_GPTQ", dynamic=[{"pattern": "q_proj", "sym": False}]),
            "GPTQ_ASYMMETRIC_NEEDS_V2",
        ),
    }.items()
]
