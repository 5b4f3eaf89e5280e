"""What is said about a result that is meant for an engine."""

from __future__ import annotations

from typing import Any

from tests.conformance.definitions.methods import eight_bit, four_bit
from tests.conformance.definitions.plans import found
from tests.conformance.definitions.writing import (
    TOKENS,
    aqlm,
    awq,
    finding,
    gguf,
    gptq,
    vector,
)
from tests.conformance.vector import Vector

ERRORS = frozenset(
    {
        "COMPUTE_CAPABILITY_TOO_LOW",
        "ENGINE_CANNOT_READ",
        "QUANT_STORAGE_NOT_READ",
        "GGML_TYPE_NOT_READ",
        "GPTQ_GRID_NOT_READ",
        "GROUP_SIZE_NOT_READ",
        "GPTQ_V2_NOT_READ",
        "FUSED_MODULES_DIFFER",
        "MODULE_SETTINGS_NOT_READ",
        "OUTPUT_HEAD_NOT_READ",
        "EXPERTS_NOT_READ",
        "AWQ_FORMAT_NOT_READ",
    }
)
INFOS = frozenset({"TENSOR_PARALLEL_NOT_SUPPORTED", "LOAD_FORMAT_NEEDED"})

OTHER_Q = [{"pattern": "q_proj", "bits": 8}]

Case = tuple[str, dict[str, Any], str, str, tuple[str, ...]]

CASES: dict[str, Case] = {
    "int8-old-card": (
        "tiny",
        eight_bit(),
        "VLLM",
        "6.1",
        (
            "COMPUTE_CAPABILITY_TOO_LOW",
            "TENSOR_PARALLEL_NOT_SUPPORTED",
            "INT8_TENSOR_CORES_MISSING",
        ),
    ),
    "nf4-storage": (
        "tiny",
        four_bit(bnb4bitQuantStorage="QUANT_STORAGE_BFLOAT16"),
        "VLLM",
        "",
        ("QUANT_STORAGE_NOT_READ",),
    ),
    "nf4-compute-type": ("tiny", four_bit(), "TRANSFORMERS", "", ("COMPUTE_DTYPE_SLOW",)),
    "nf4-bfloat16": (
        "tiny",
        four_bit(bnb4bitComputeDtype="COMPUTE_DTYPE_BFLOAT16"),
        "TRANSFORMERS",
        "7.5",
        ("BFLOAT16_SLOW",),
    ),
    "nf4-sglang": ("tiny", four_bit(), "SGLANG", "8.0", ("LOAD_FORMAT_NEEDED",)),
    "nf4-llama-cpp": ("tiny", four_bit(), "LLAMA_CPP", "", ("ENGINE_CANNOT_READ",)),
    "gguf-transformers": ("tiny", gguf(), "TRANSFORMERS", "", ("GGUF_DEQUANTIZED_AT_LOAD",)),
    "gguf-vllm": ("tiny", gguf(), "VLLM", "", ("ENGINE_PLUGIN_NEEDED",)),
    "ternary-vllm": ("wide", gguf("TQ2_0"), "VLLM", "", ("GGML_TYPE_NOT_READ",)),
    "ternary-card": ("wide", gguf("TQ2_0"), "LLAMA_CPP", "8.6", ("GGML_TYPE_ON_CPU",)),
    "gptq-3-bits": ("tiny", gptq(bits=3), "VLLM", "", ("GPTQ_GRID_NOT_READ",)),
    "gptq-group-16": ("tiny", gptq(groupSize=16), "VLLM", "", ("GROUP_SIZE_NOT_READ",)),
    "gptq-shapes": ("tiny", gptq(), "VLLM", "", ("MARLIN_SHAPE",)),
    "gptq-sglang": ("tiny", gptq(groupSize=16), "SGLANG", "", ("MARLIN_NOT_USED",)),
    "gptq-old-card": ("tiny", gptq(), "VLLM", "7.0", ("MARLIN_NOT_USED",)),
    "gptq-v2": ("tiny", gptq(sym=False), "SGLANG", "", ("GPTQ_V2_NOT_READ",)),
    "gptq-fused": ("tiny", gptq(dynamic=OTHER_Q), "VLLM", "", ("FUSED_MODULES_DIFFER",)),
    "gptq-modules": (
        "tiny",
        gptq(dynamic=OTHER_Q),
        "TRANSFORMERS",
        "",
        ("MODULE_SETTINGS_NOT_READ",),
    ),
    "gptq-head": ("untied", gptq(lmHead=True), "TRANSFORMERS", "", ("OUTPUT_HEAD_NOT_READ",)),
    "gptq-experts": ("mixture", gptq(), "TRANSFORMERS", "", ("EXPERTS_NOT_READ",)),
    "gptq-order": ("tiny", gptq(descAct=True), "VLLM", "", ("ACTIVATION_ORDER_SLOW",)),
    "awq-format": (
        "tiny",
        awq(format="AWQ_FORMAT_GEMV"),
        "VLLM",
        "",
        ("AWQ_FORMAT_NOT_READ",),
    ),
    "awq-card": ("tiny", awq(), "VLLM", "7.0", ("COMPUTE_CAPABILITY_TOO_LOW",)),
    "aqlm-kernel": (
        "tiny",
        aqlm(outGroupSize=2),
        "TRANSFORMERS",
        "",
        ("AQLM_KERNEL_MISSING", "ENGINE_PLUGIN_NEEDED"),
    ),
    "aqlm-vllm": ("tiny", aqlm(), "VLLM", "", ("ENGINE_CANNOT_READ",)),
}


def case(name: str, planned: Case) -> Vector:
    """A plan for one engine."""
    source, method, engine, capability, reasons = planned
    target = {"engine": f"ENGINE_{engine}", "computeCapability": capability}
    data = {"calibration": TOKENS} if {"gptq", "awq", "aqlm"} & method.keys() else {}
    findings = [
        finding(
            "ERROR" if reason in ERRORS else "INFO" if reason in INFOS else "WARNING",
            reason,
            "spec.serve_targets[0]",
        )
        for reason in reasons
    ]
    return vector(f"serve/{name}", found(source, method, *findings, serveTargets=[target], **data))


VECTORS: list[Vector] = [case(name, planned) for name, planned in CASES.items()]
