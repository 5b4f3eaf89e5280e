"""What is said about a result that is meant for an engine: each row of the table, on and off."""

from __future__ import annotations

import pytest
from tests import tiny_models
from tests.quantizing import planned, specification

from quantd_server.engine.specification import ServeTarget
from quantd_server.errors import Severity
from quantd_server.planning import serve_targets
from quantd_server.planning.load_requirements import LOAD_PATHS
from quantd_server.planning.serve_targets import (
    ENGINE_NAMES,
    RULES,
    TRANSFORMERS_GGUF_ARCHITECTURES,
    Artifact,
    engine_findings,
    target_findings,
)

EIGHT_BIT = Artifact(method="bitsandbytes_8bit")
NF4 = Artifact(method="bitsandbytes_4bit", compute_dtype="BFLOAT16")
NF4_IN_FLOATS = Artifact(
    method="bitsandbytes_4bit", compute_dtype="BFLOAT16", quant_storage="BFLOAT16"
)
NF4_BY_DEFAULT = Artifact(method="bitsandbytes_4bit", compute_dtype="FLOAT32")
LLAMA_FILE = Artifact(
    method="gguf", gguf_architecture="llama", tensor_types=frozenset({"Q4_K", "F32"})
)
QWEN35_FILE = Artifact(method="gguf", gguf_architecture="qwen35")
ODD_FILE = Artifact(method="gguf", gguf_architecture="never_heard_of")
TERNARY = Artifact(method="gguf", gguf_architecture="llama", tensor_types=frozenset({"TQ2_0"}))
MXFP4 = Artifact(method="gguf", gguf_architecture="llama", tensor_types=frozenset({"MXFP4"}))

CASES = [
    # bitsandbytes
    (EIGHT_BIT, "TRANSFORMERS", "", []),
    (EIGHT_BIT, "TRANSFORMERS", "7.5", []),
    (EIGHT_BIT, "TRANSFORMERS", "7.0", ["INT8_TENSOR_CORES_MISSING"]),
    (EIGHT_BIT, "VLLM", "7.5", ["TENSOR_PARALLEL_NOT_SUPPORTED"]),
    (EIGHT_BIT, "VLLM", "7.0", ["TENSOR_PARALLEL_NOT_SUPPORTED", "INT8_TENSOR_CORES_MISSING"]),
    (
        EIGHT_BIT,
        "VLLM",
        "6.1",
        [
            "COMPUTE_CAPABILITY_TOO_LOW",
            "TENSOR_PARALLEL_NOT_SUPPORTED",
            "INT8_TENSOR_CORES_MISSING",
        ],
    ),
    (EIGHT_BIT, "LLAMA_CPP", "", ["ENGINE_CANNOT_READ"]),
    (NF4, "TRANSFORMERS", "8.0", []),
    (NF4, "TRANSFORMERS", "7.5", ["BFLOAT16_SLOW"]),
    (NF4, "TRANSFORMERS", "", []),
    (NF4_BY_DEFAULT, "TRANSFORMERS", "", ["COMPUTE_DTYPE_SLOW"]),
    (NF4_BY_DEFAULT, "VLLM", "", ["TENSOR_PARALLEL_NOT_SUPPORTED"]),
    (NF4, "VLLM", "10.0", ["TENSOR_PARALLEL_NOT_SUPPORTED"]),
    (NF4_IN_FLOATS, "VLLM", "", ["QUANT_STORAGE_NOT_READ", "TENSOR_PARALLEL_NOT_SUPPORTED"]),
    (NF4_IN_FLOATS, "TRANSFORMERS", "", []),
    (NF4, "SGLANG", "8.0", ["TENSOR_PARALLEL_NOT_SUPPORTED", "LOAD_FORMAT_NEEDED"]),
    (
        NF4_IN_FLOATS,
        "SGLANG",
        "7.0",
        [
            "COMPUTE_CAPABILITY_TOO_LOW",
            "QUANT_STORAGE_NOT_READ",
            "TENSOR_PARALLEL_NOT_SUPPORTED",
            "LOAD_FORMAT_NEEDED",
        ],
    ),
    (NF4, "LLAMA_CPP", "", ["ENGINE_CANNOT_READ"]),
    # GGUF
    (LLAMA_FILE, "LLAMA_CPP", "", []),
    (LLAMA_FILE, "LLAMA_CPP", "6.1", []),
    (ODD_FILE, "LLAMA_CPP", "", []),
    (LLAMA_FILE, "TRANSFORMERS", "", ["GGUF_DEQUANTIZED_AT_LOAD"]),
    (QWEN35_FILE, "TRANSFORMERS", "", []),
    (ODD_FILE, "TRANSFORMERS", "", ["GGUF_ARCHITECTURE_NOT_READ", "GGUF_DEQUANTIZED_AT_LOAD"]),
    (LLAMA_FILE, "VLLM", "", ["ENGINE_PLUGIN_NEEDED"]),
    (MXFP4, "VLLM", "", ["ENGINE_PLUGIN_NEEDED", "GGML_TYPE_NOT_READ"]),
    (TERNARY, "VLLM", "", ["ENGINE_PLUGIN_NEEDED", "GGML_TYPE_NOT_READ"]),
    (LLAMA_FILE, "SGLANG", "", ["LOAD_FORMAT_NEEDED"]),
    (MXFP4, "SGLANG", "", ["LOAD_FORMAT_NEEDED", "GGML_TYPE_NOT_READ"]),
    (TERNARY, "SGLANG", "", ["LOAD_FORMAT_NEEDED", "GGML_TYPE_NOT_READ"]),
    (TERNARY, "LLAMA_CPP", "", []),
    (TERNARY, "LLAMA_CPP", "8.6", ["GGML_TYPE_ON_CPU"]),
]


@pytest.mark.parametrize(("artifact", "engine", "capability", "expected"), CASES)
def test_each_row(artifact, engine, capability, expected) -> None:
    target = ServeTarget(engine=engine, compute_capability=capability)
    findings = list(target_findings(artifact, [target]))
    assert [finding.reason for finding in findings] == expected
    for finding in findings:
        assert finding.field == "spec.serve_targets[0]"
        assert finding.remedy
        assert "{" not in finding.message


def test_every_rule_has_a_case() -> None:
    covered = {
        (reason, engine, artifact.method)
        for artifact, engine, _, expected in CASES
        for reason in expected
    }
    for rule in RULES:
        for engine in rule.engines:
            assert any((rule.reason, engine, method) in covered for method in rule.methods) or (
                rule.reason == "INT8_TENSOR_CORES_MISSING"
                and engine == "SGLANG"  # needs 7.5 anyway
            )


def test_every_method_is_answered_for_in_every_engine() -> None:
    for method in LOAD_PATHS:
        for engine in ENGINE_NAMES:
            findings = list(engine_findings(Artifact(method=method), engine))
            readable = any(
                path.engine == engine and not path.dropped for path in LOAD_PATHS[method]
            )
            assert any(f.reason == "ENGINE_CANNOT_READ" for f in findings) == (not readable)


def test_the_field_tells_which_target() -> None:
    targets = [ServeTarget(engine="TRANSFORMERS"), ServeTarget(engine="LLAMA_CPP")]
    (finding,) = target_findings(NF4, targets)
    assert finding.field == "spec.serve_targets[1]"
    assert (finding.severity, finding.kind) == (Severity.ERROR, "invalid")


def test_what_cannot_be_read_refuses_the_job_and_what_is_slow_does_not(tmp_path) -> None:
    source = tiny_models.write(tmp_path / "source")

    def report(method, config, *targets):
        spec = specification(
            source,
            "",
            method,
            config,
            serve_targets=tuple(ServeTarget(engine=engine) for engine in targets),
        )
        found = planned(spec)
        return found.executable, [finding.reason for finding in found.findings]

    assert report("bitsandbytes_4bit", {}, "LLAMA_CPP") == (False, ["ENGINE_CANNOT_READ"])
    assert report("bitsandbytes_4bit", {}, "TRANSFORMERS") == (True, ["COMPUTE_DTYPE_SLOW"])
    assert report("bitsandbytes_4bit", {"bnb_4bit_quant_storage": "FLOAT16"}, "VLLM") == (
        False,
        ["QUANT_STORAGE_NOT_READ", "TENSOR_PARALLEL_NOT_SUPPORTED"],
    )
    assert report("gguf", {"file_type": "Q8_0"}, "LLAMA_CPP") == (True, [])
    assert report("gguf", {"file_type": "Q8_0"}, "TRANSFORMERS", "VLLM") == (
        True,
        ["GGUF_DEQUANTIZED_AT_LOAD", "ENGINE_PLUGIN_NEEDED"],
    )


def test_the_architectures_are_those_that_transformers_reads() -> None:
    loader = pytest.importorskip("transformers.modeling_gguf_pytorch_utils")
    packed = pytest.importorskip("transformers.integrations.gguf.utils").GGUF_ARCHS
    # Their table has keys that are no architectures, and names some as model_type does.
    spelling = {"qwen2_moe": "qwen2moe", "qwen3_moe": "qwen3moe", "minimax_m2": "minimax-m2"}
    known = set(loader.GGUF_SUPPORTED_ARCHITECTURES) - {"general", "tokenizer", "mistral", "umt5"}
    theirs = {spelling.get(name, name) for name in known} | set(packed)
    assert theirs | {"gpt-oss", "t5encoder"} == TRANSFORMERS_GGUF_ARCHITECTURES
    assert set(packed) == serve_targets.TRANSFORMERS_PACKED_ARCHITECTURES
