"""Plans: what happens to each tensor, and how many bytes it takes, counted from the formats."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tests.conformance.definitions import tiny
from tests.conformance.definitions.writing import (
    ABSENT,
    INT8,
    INVALID,
    NF4,
    PLAN,
    TOKENS,
    answered,
    aqlm,
    awq,
    finding,
    gguf,
    gptq,
    refused,
    some,
    spec,
    vector,
)
from tests.conformance.vector import Step, Vector

Shape = tuple[int, ...]


def planned(source: str, method: dict[str, Any], reply: dict[str, Any], **members: Any) -> Step:
    """A plan that matches."""
    request: dict[str, Any] = {"spec": spec(source, method, **members)}
    return answered(PLAN, request, reply)


def found(source: str, method: dict[str, Any], *findings: dict[str, Any], **members: Any) -> Step:
    """A plan with these findings, among others; it is executable if none of them is an error."""
    executable = all(each["severity"] != "SEVERITY_ERROR" for each in findings)
    reply = {"findings": some(*findings), "executable": executable}
    return planned(source, method, reply, **members)


def tensor(name: str, action: str, kind: str, nbytes: int, **members: Any) -> dict[str, Any]:
    """What happens to one tensor of the tiny checkpoint."""
    return {
        "sourceName": name,
        "shape": [str(length) for length in tiny.TENSORS[name]],
        "sourceType": "BF16",
        "sourceBytes": str(2 * math.prod(tiny.TENSORS[name])),
        "action": f"TENSOR_ACTION_{action}",
        "targetType": kind,
        "targetBytes": str(nbytes),
        "reason": {"$text": "."},
        **members,
    }


def whole(
    method: dict[str, Any],
    kind: str,
    size: Callable[[Shape], int],
    *,
    norms: str = "KEEP",
    **plan: Any,
) -> Step:
    """A plan of all tensors: linears become ``kind`` of ``size`` bytes, the rest stays."""
    linears = {
        f"model.layers.{block}.{name}.weight": shape
        for block in range(tiny.BLOCKS)
        for name, shape in tiny.LINEARS.items()
    }
    tensors = [
        tensor(name, "QUANTIZE", kind, size(shape), targetName={"$text": "."})
        for name, shape in linears.items()
    ]
    for name, shape in tiny.TENSORS.items():
        if name not in linears:
            action = norms if ".layers." in name else "KEEP"
            tensors.append(tensor(name, action, "BF16", 2 * math.prod(shape), targetName=name))
    quantized = sum(size(shape) for shape in linears.values())
    kept = 2 * (tiny.PARAMETERS - tiny.LINEAR_PARAMETERS)
    summary = {
        "parameterCount": str(tiny.PARAMETERS),
        "quantizedParameterCount": str(tiny.LINEAR_PARAMETERS),
        "sourceBytes": str(tiny.SOURCE_BYTES),
        "types": some(
            {
                "targetType": kind,
                "tensorCount": str(tiny.LINEAR_COUNT),
                "elementCount": str(tiny.LINEAR_PARAMETERS),
                "sizeBytes": str(quantized),
            },
            {"targetType": "BF16", "sizeBytes": str(kept)},
        ),
        "device": "DEVICE_KIND_CPU",
        # Headers come on top.
        "outputBytes": {"$between": [quantized + kept, quantized + kept + 16_384]},
        **plan,
    }
    calibration = {} if kind == "INT8" else {"calibration": TOKENS}
    step = planned("tiny", method, {"executable": True, "plan": summary}, **calibration)
    step["request"]["pageSize"] = 100
    step["expect"]["reply"]["tensors"] = {"$some": tensors}
    return step


def groups(shape: Shape) -> int:
    """Groups of 32 weights in the linears of the tiny checkpoint."""
    return math.prod(shape) // 32


GPTQ_BYTES = {
    # 4-bit codes and zero points, a float16 scale a group, an int32 a column.
    bits: lambda shape, bits=bits: (
        math.prod(shape) * bits // 8 + groups(shape) * bits // 8 + 2 * groups(shape) + 4 * shape[1]
    )
    for bits in (2, 4, 8)
}


def awq_bytes(shape: Shape) -> int:
    """4-bit codes and zero points, a float16 scale a group."""
    return math.prod(shape) // 2 + groups(shape) // 2 + 2 * groups(shape)


def aqlm_bytes(shape: Shape) -> int:
    """Two codes of a byte for 8 weights, two codebooks of 16 vectors, a scale a row."""
    return 2 * math.prod(shape) // 8 + 2 * 16 * 8 * 2 + 2 * shape[0]


def gguf_tensors() -> Step:
    """Every name of the file, with its bytes."""
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    tensors = [
        tensor(
            f"model.layers.{block}.{name}.weight",
            "QUANTIZE",
            "Q8_0",
            # 34 bytes for 32 weights.
            math.prod(shape) // 32 * 34,
            targetName=f"blk.{block}.{names[name]}.weight",
        )
        for block in range(tiny.BLOCKS)
        for name, shape in tiny.LINEARS.items()
    ]
    norm = tensor(
        "model.norm.weight", "CONVERT", "F32", 4 * tiny.HIDDEN, targetName="output_norm.weight"
    )
    step = planned("tiny", gguf("Q8_0"), {"executable": True, "findings": []})
    step["request"]["pageSize"] = 100
    step["expect"]["reply"]["tensors"] = some(*tensors, norm)
    return step


def pages() -> list[Step]:
    """A listing page by page."""
    request = {"spec": spec("tiny", NF4), "pageSize": 15}
    other = {"spec": spec("tiny", INT8), "pageSize": 15, "pageToken": "${token}"}
    return [
        answered(
            PLAN, request, {"tensors": {"$length": 15}}, keep={"token": "reply.nextPageToken"}
        ),
        answered(
            PLAN,
            {**request, "pageToken": "${token}"},
            {"tensors": {"$length": 5}, "nextPageToken": ABSENT},
        ),
        refused(PLAN, other, INVALID, "PAGE_TOKEN_INVALID", "page_token"),
    ]


DEFAULTS = {
    "gguf": ({"gguf": {}}, {"gguf": {"fileType": "GGUF_FILE_TYPE_Q4_K_M", "pure": False}}),
    "bitsandbytes-4bit": (
        {"bitsandbytes4bit": {}},
        {
            "bitsandbytes4bit": {
                "bnb4bitQuantType": "FOUR_BIT_TYPE_FP4",
                "bnb4bitComputeDtype": "COMPUTE_DTYPE_FLOAT32",
                "bnb4bitUseDoubleQuant": False,
                "bnb4bitQuantStorage": "QUANT_STORAGE_UINT8",
                "blocksize": 64,
            }
        },
    ),
    "gptq": (
        gptq(),
        {
            "gptq": {
                "bits": 4,
                "groupSize": 32,
                "dampPercent": 0.05,
                "descAct": False,
                "actGroupAware": True,
                "sym": True,
                "staticGroups": True,
                "format": "GPTQ_FORMAT_GPTQ",
                "maxShrink": 0.5,
                "blockSize": 128,
                "lmHead": False,
            }
        },
    ),
    "awq": (
        awq(),
        {
            "awq": {
                "bits": 4,
                "groupSize": 32,
                "zeroPoint": True,
                "format": "AWQ_FORMAT_GEMM",
                "nGrid": 20,
                "maxShrink": 0.5,
            }
        },
    ),
    "aqlm": (
        aqlm(),
        {
            "aqlm": {
                "numCodebooks": 2,
                "nbitsPerCodebook": 4,
                "inGroupSize": 8,
                "outGroupSize": 1,
                "relativeMseTolerance": 0.01,
                "beamSize": 1,
                "finetuneMaxEpochs": 4,
            }
        },
    ),
}

LINKED = {"sourceUri": "/etc", "method": NF4}


VECTORS: list[Vector] = [
    vector("plan/gguf-tensors", gguf_tensors()),
    vector(
        "plan/int8-tensors",
        # A byte a weight, a float32 a row, and one byte that names the order of the codes.
        whole(INT8, "INT8", lambda shape: math.prod(shape) + 4 * shape[0] + 1),
    ),
    *(
        vector(f"plan/gptq-{bits}-bit-tensors", whole(gptq(bits=bits), f"GPTQ{bits}", size))
        for bits, size in GPTQ_BYTES.items()
    ),
    vector("plan/awq-tensors", whole(awq(), "AWQ4", awq_bytes, norms="RESCALE")),
    vector("plan/aqlm-tensors", whole(aqlm(), "AQLM2x4", aqlm_bytes, norms="RESCALE")),
    *(
        vector(
            f"plan/defaults-{name}",
            planned("tiny", method, {"plan": {"method": resolved}}),
        )
        for name, (method, resolved) in DEFAULTS.items()
    ),
    vector("plan/pages", *pages()),
    vector(
        "plan/calibration-usage",
        planned(
            "tiny",
            gptq(),
            {
                "findings": [],
                "plan": {
                    "calibration": {
                        "samplesRequested": 8,
                        "samplesUsable": 8,
                        "tokens": "256",
                        "sha256": {"$text": "^[0-9a-f]{64}$"},
                    }
                },
            },
            calibration=TOKENS,
        ),
    ),
    vector(
        "plan/gguf-source",
        planned("plain.gguf", gguf("Q8_0"), {"plan": {"parameterCount": "64"}}),
    ),
    vector(
        "plan/source-format",
        refused(
            PLAN, {"spec": spec("plain.gguf", NF4)}, INVALID, "SOURCE_FORMAT", "spec.source_uri"
        ),
    ),
    vector(
        "plan/path-outside-roots",
        refused(PLAN, {"spec": LINKED}, INVALID, "PATH_OUTSIDE_ROOTS", "spec.source_uri"),
    ),
    vector(
        "plan/dots-outside-roots",
        refused(
            PLAN,
            {"spec": {"sourceUri": "${sources}/../outside", "method": NF4}},
            INVALID,
            "PATH_OUTSIDE_ROOTS",
            "spec.source_uri",
        ),
    ),
    vector(
        "plan/uri-unsupported",
        refused(
            PLAN,
            {"spec": {"sourceUri": "s3://bucket/model", "method": NF4}},
            INVALID,
            "URI_UNSUPPORTED",
            "spec.source_uri",
        ),
    ),
    vector(
        "plan/already-quantized",
        found("quantized-gptq", NF4, finding("ERROR", "SOURCE_ALREADY_QUANTIZED")),
    ),
]
