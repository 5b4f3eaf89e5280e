"""What a client asks before anything happens: capabilities, and checkpoints as they are."""

from __future__ import annotations

from typing import Any

from tests.conformance.definitions import tiny
from tests.conformance.definitions.writing import (
    ABSENT,
    CAPABILITIES,
    INSPECT,
    INVALID,
    answered,
    finding,
    refused,
    some,
    vector,
)
from tests.conformance.vector import Step, Vector

METHODS = ("BITSANDBYTES_8BIT", "BITSANDBYTES_4BIT", "GPTQ", "AWQ", "GGUF", "AQLM")


def unmet(engine: str, *reasons: str) -> dict[str, Any]:
    """An engine that cannot load results here, for these reasons among others."""
    return {
        "engine": f"ENGINE_{engine}",
        "availability": {
            "available": False,
            "unmet": some(*({"reason": reason} for reason in reasons)),
        },
    }


def method(name: str, **members: Any) -> dict[str, Any]:
    """A method that can quantize here."""
    return {"method": f"METHOD_{name}", "quantize": {"available": True}, **members}


def inspected(source: str, reply: dict[str, Any], **request: Any) -> Step:
    """A checkpoint that is described."""
    return answered(INSPECT, {"sourceUri": f"${{sources}}/{source}", **request}, reply)


def load(engine: str, *reasons: str, **members: Any) -> dict[str, Any]:
    """How one engine would load a checkpoint, with these reasons among others."""
    return {
        "engine": f"ENGINE_{engine}",
        "findings": some(*({"reason": reason} for reason in reasons)),
        **members,
    }


TINY = {
    "uri": "${sources}/tiny",
    "format": "CHECKPOINT_FORMAT_SAFETENSORS",
    "modelType": "llama",
    "architecture": "LlamaForCausalLM",
    "parameterCount": str(tiny.PARAMETERS),
    "sizeBytes": str(tiny.SOURCE_BYTES),
    "fileCount": 1,
    "tensorCount": "20",
    "dtypes": [
        {
            "dtype": "BF16",
            "tensorCount": "20",
            "elementCount": str(tiny.PARAMETERS),
            "sizeBytes": str(tiny.SOURCE_BYTES),
        }
    ],
    "tiedEmbeddings": True,
    "blockCount": 2,
    "hiddenSize": "64",
    "contextLength": "128",
    "vocabSize": "272",
    "headCount": 4,
    "kvHeadCount": 2,
    "headDim": 16,
    "tokenizer": "TOKENIZER_KIND_BPE",
    "quantization": ABSENT,
}

NAMES = sorted(tiny.TENSORS)
FIRST, LAST = NAMES[:12], NAMES[12:]


def tensor(name: str) -> dict[str, Any]:
    """One tensor of the tiny checkpoint."""
    size = 2
    for length in tiny.TENSORS[name]:
        size *= length
    return {
        "name": name,
        "dtype": "BF16",
        "shape": [str(length) for length in tiny.TENSORS[name]],
        "sizeBytes": str(size),
        "file": "model.safetensors",
    }


PAGE = {"sourceUri": "${sources}/tiny", "pageSize": 12}

# Keys and values of 2 heads of 16 in 2 blocks, two bytes each.
CACHE_OF_100_TOKENS = 100 * 2 * 2 * 2 * 16 * 2

VECTORS: list[Vector] = [
    vector(
        "capabilities/all",
        answered(
            CAPABILITIES,
            {},
            {
                "server": {"apiVersions": ["quantd.v1"], "version": {"$text": r"^\d+\.\d+\.\d+"}},
                "devices": some({"kind": "DEVICE_KIND_CPU"}),
                "methods": [{"method": f"METHOD_{name}"} for name in METHODS],
                "limits": {
                    "maxRequestBytes": str(4 << 20),
                    "maxRunningJobs": 2,
                    "maxQueuedJobs": 64,
                    "maxViolations": 32,
                    "heartbeatInterval": "1s",
                },
                "host": {"cpuCount": {"$between": [1, 100_000]}, "machine": {"$text": "."}},
                "packages": some({"name": "torch", "version": {"$text": r"^\d"}}),
            },
        ),
    ),
    vector(
        "capabilities/methods",
        answered(
            CAPABILITIES,
            {},
            {
                "methods": some(
                    method("GPTQ", needsCalibration=True, bits=[2, 3, 4, 8]),
                    method("AWQ", needsCalibration=True, bits=[4]),
                    method("BITSANDBYTES_4BIT", needsCalibration=False),
                    method(
                        "GGUF",
                        ggufFileTypes=some(
                            {
                                "fileType": "GGUF_FILE_TYPE_Q8_0",
                                "bitsPerWeight": 8.5,
                                "needsImatrix": False,
                            },
                            {"fileType": "GGUF_FILE_TYPE_Q2_K_S", "needsImatrix": True},
                        ),
                        modelTypes=some("llama", "qwen2", "gemma2"),
                    ),
                )
            },
        ),
    ),
    vector(
        "capabilities/what-is-missing",
        answered(
            CAPABILITIES,
            {},
            {
                "methods": some(
                    method("AQLM", load=some(unmet("VLLM", "ENGINE_DROPPED_METHOD"))),
                    method(
                        "GGUF",
                        load=some(
                            unmet("LLAMA_CPP", "LLAMA_CPP_NOT_FOUND"),
                            unmet("SGLANG", "PACKAGE_MISSING", "CUDA_DEVICE_MISSING"),
                        ),
                    ),
                )
            },
        ),
        needs="cpu",
    ),
    vector(
        "capabilities/refresh",
        answered(CAPABILITIES, {"refresh": True}, {"packages": some({"name": "safetensors"})}),
    ),
    vector("inspect/llama", inspected("tiny", {"checkpoint": TINY, "tensors": [], "findings": []})),
    vector(
        "inspect/shards",
        inspected("sharded", {"checkpoint": {"fileCount": 2, "tensorCount": "20"}}),
    ),
    vector(
        "inspect/gpt2",
        inspected(
            "gpt2",
            {"checkpoint": {"modelType": "gpt2", "contextLength": "128", "kvHeadCount": 4}},
        ),
    ),
    vector(
        "inspect/file-uri",
        answered(
            INSPECT,
            {"sourceUri": "file://${sources}/tiny"},
            {"checkpoint": {**TINY, "uri": "file://${sources}/tiny"}},
        ),
    ),
    vector(
        "inspect/pages",
        answered(
            INSPECT,
            PAGE,
            {"checkpoint": TINY, "tensors": [tensor(name) for name in FIRST]},
            keep={"token": "reply.nextPageToken"},
        ),
        answered(
            INSPECT,
            {**PAGE, "pageToken": "${token}"},
            {"tensors": [tensor(name) for name in LAST], "nextPageToken": ABSENT},
        ),
        refused(
            INSPECT,
            {"sourceUri": "${sources}/slow", "pageSize": 12, "pageToken": "${token}"},
            INVALID,
            "PAGE_TOKEN_INVALID",
            "page_token",
        ),
    ),
    vector(
        "inspect/cache",
        inspected(
            "tiny",
            {
                "loads": some(
                    load(
                        "TRANSFORMERS",
                        device="DEVICE_KIND_CPU",
                        weightBytes=str(tiny.SOURCE_BYTES),
                        kvCacheBytes=str(CACHE_OF_100_TOKENS),
                        loadable=True,
                    )
                )
            },
            contextLength="100",
        ),
        needs="cpu",
    ),
    vector(
        "inspect/no-card",
        inspected(
            "tiny",
            {
                "loads": some(
                    load("VLLM", "CUDA_DEVICE_MISSING", "PACKAGE_MISSING", loadable=False),
                    load("LLAMA_CPP", "ENGINE_CANNOT_READ", loadable=False),
                )
            },
        ),
        needs="cpu",
    ),
    vector(
        "inspect/context-beyond-model",
        inspected(
            "tiny",
            {"findings": some(finding("WARNING", "CONTEXT_BEYOND_MODEL"))},
            contextLength="129",
        ),
    ),
    vector(
        "inspect/memory-too-small",
        inspected(
            "endless",
            {
                "checkpoint": {"fileCount": {"$between": [2, 20]}, "blockCount": 8},
                "findings": some(finding("INFO", "MIXTURE_OF_EXPERTS")),
                "loads": some(load("TRANSFORMERS", "MEMORY_TOO_SMALL", loadable=False)),
            },
            contextLength="100000000",
        ),
    ),
    vector(
        "inspect/already-gptq",
        inspected(
            "quantized-gptq",
            {
                "checkpoint": {
                    "quantization": {
                        "quantMethod": "gptq",
                        "method": {"gptq": {"bits": 4, "groupSize": 128}},
                        "configJson": {
                            "$json": {"bits": 4, "group_size": 128, "quant_method": "gptq"}
                        },
                    }
                }
            },
        ),
    ),
    vector(
        "inspect/already-hqq",
        inspected(
            "quantized-hqq",
            {
                "checkpoint": {"quantization": {"quantMethod": "hqq", "method": ABSENT}},
                "loads": some(load("TRANSFORMERS", "QUANTIZATION_NOT_ASSESSED")),
            },
        ),
    ),
    vector(
        "inspect/gguf",
        inspected(
            "never-heard-of.gguf",
            {
                "checkpoint": {
                    "format": "CHECKPOINT_FORMAT_GGUF",
                    "modelType": "never_heard_of",
                    "parameterCount": "64",
                    "sizeBytes": "128",
                },
                "tensors": [{"name": "blk.0.attn_q.weight", "dtype": "F16", "shape": ["2", "32"]}],
                "loads": some(load("TRANSFORMERS", "GGUF_ARCHITECTURE_NOT_READ", loadable=False)),
            },
            pageSize=5,
        ),
    ),
    vector(
        "inspect/blocks-missing",
        inspected("blocks-missing", {"findings": some(finding("WARNING", "BLOCKS_MISSING"))}),
    ),
    vector(
        "inspect/output-head-missing",
        inspected("head-missing", {"findings": some(finding("WARNING", "OUTPUT_HEAD_MISSING"))}),
    ),
]
