"""What is said about a result that is meant for an engine: each row of the table, on and off."""

from __future__ import annotations

import pytest
from tests import tiny_models
from tests.quantizing import method_config, planned, specification

from quantd_server.engine.specification import ServeTarget
from quantd_server.errors import Severity
from quantd_server.planning import serve_targets
from quantd_server.planning.artifact import Artifact, configured_artifact
from quantd_server.planning.load_requirements import LOAD_PATHS
from quantd_server.planning.serve_targets import (
    ENGINE_NAMES,
    RULES,
    TRANSFORMERS_GGUF_ARCHITECTURES,
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


def gptq(**facts) -> Artifact:
    usual = {"bits": {4}, "group_sizes": {128}, "shapes": {(4096, 4096)}}
    sets = {name: frozenset(facts.pop(name, values)) for name, values in usual.items()}
    return Artifact(method="gptq", **{"symmetric": True, "format": "GPTQ"} | sets | facts)


def awq(**facts) -> Artifact:
    usual = {"bits": {4}, "group_sizes": {128}, "shapes": {(4096, 4096)}}
    sets = {name: frozenset(facts.pop(name, values)) for name, values in usual.items()}
    return Artifact(method="awq", **{"format": "GEMM"} | sets | facts)


AQLM = Artifact(method="aqlm")
PLUGIN = "ENGINE_PLUGIN_NEEDED"

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
    # GPTQ
    (gptq(), "VLLM", "", []),
    (gptq(bits={4, 8}, group_sizes={-1, 32, 64}), "VLLM", "9.0", []),
    (gptq(), "VLLM", "7.0", ["MARLIN_NOT_USED"]),
    (gptq(bits={3}), "VLLM", "", ["GPTQ_GRID_NOT_READ"]),
    (gptq(bits={4, 2}), "VLLM", "", ["GPTQ_GRID_NOT_READ"]),
    (gptq(symmetric=False, format="GPTQ_V2"), "VLLM", "", ["GPTQ_GRID_NOT_READ"]),
    (gptq(group_sizes={256}), "VLLM", "", ["GROUP_SIZE_NOT_READ"]),
    (gptq(shapes={(4096, 576)}), "VLLM", "", ["MARLIN_SHAPE"]),
    (gptq(shapes={(96, 4096)}), "VLLM", "", ["MARLIN_SHAPE"]),
    (gptq(shapes={(192, 4096), (64, 128)}), "VLLM", "", []),
    (gptq(has_fused_differences=True), "VLLM", "", ["FUSED_MODULES_DIFFER"]),
    (gptq(desc_act=True), "VLLM", "", ["ACTIVATION_ORDER_SLOW"]),
    (gptq(desc_act=True, group_sizes={-1}), "VLLM", "", []),
    (gptq(has_quantized_experts=True, has_quantized_head=True), "VLLM", "", []),
    (gptq(), "SGLANG", "", []),
    (gptq(bits={2}), "SGLANG", "", ["MARLIN_NOT_USED"]),
    (gptq(group_sizes={16}), "SGLANG", "", ["MARLIN_NOT_USED"]),
    (gptq(format="GPTQ_V2"), "SGLANG", "", []),
    (gptq(symmetric=False, format="GPTQ_V2"), "SGLANG", "", ["GPTQ_V2_NOT_READ"]),
    (gptq(has_fused_differences=True), "SGLANG", "", ["FUSED_MODULES_DIFFER"]),
    (gptq(desc_act=True), "SGLANG", "", ["ACTIVATION_ORDER_SLOW"]),
    (gptq(), "TRANSFORMERS", "", [PLUGIN]),
    (gptq(symmetric=False, bits={3}, group_sizes={16}), "TRANSFORMERS", "", [PLUGIN]),
    (gptq(has_module_settings=True), "TRANSFORMERS", "", [PLUGIN, "MODULE_SETTINGS_NOT_READ"]),
    (gptq(has_quantized_head=True), "TRANSFORMERS", "", [PLUGIN, "OUTPUT_HEAD_NOT_READ"]),
    (gptq(has_quantized_experts=True), "TRANSFORMERS", "", [PLUGIN, "EXPERTS_NOT_READ"]),
    (gptq(desc_act=True), "TRANSFORMERS", "", [PLUGIN, "ACTIVATION_ORDER_SLOW"]),
    # AWQ
    (awq(), "VLLM", "", []),
    (awq(), "VLLM", "7.0", ["COMPUTE_CAPABILITY_TOO_LOW"]),
    (awq(group_sizes={16}), "VLLM", "", ["MARLIN_NOT_USED"]),
    (awq(shapes={(4096, 576)}), "VLLM", "", ["MARLIN_SHAPE"]),
    (awq(format="GEMV"), "VLLM", "", ["AWQ_FORMAT_NOT_READ"]),
    (awq(), "SGLANG", "", []),
    (awq(group_sizes={16}), "SGLANG", "", ["MARLIN_NOT_USED"]),
    (awq(format="LLM_AWQ"), "SGLANG", "", ["AWQ_FORMAT_NOT_READ"]),
    (awq(), "TRANSFORMERS", "", [PLUGIN]),
    (awq(has_quantized_experts=True), "TRANSFORMERS", "", ["EXPERTS_NOT_READ", PLUGIN]),
    # AQLM
    (AQLM, "TRANSFORMERS", "", [PLUGIN]),
    (
        Artifact(method="aqlm", out_group_size=2),
        "TRANSFORMERS",
        "",
        [PLUGIN, "AQLM_KERNEL_MISSING"],
    ),
    (AQLM, "VLLM", "", ["ENGINE_CANNOT_READ"]),
    (AQLM, "SGLANG", "", ["ENGINE_CANNOT_READ"]),
    (AQLM, "LLAMA_CPP", "", ["ENGINE_CANNOT_READ"]),
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


@pytest.mark.parametrize(
    ("pattern", "differ"),
    [
        ("q_proj", True),
        ("self_attn", False),
        (r"self_attn\.(q|k|v|qkv)_proj", False),
        (r"self_attn\.(q|k|v)_proj", True),
        (r"mlp\.up_proj", True),
        ("down_proj", False),
    ],
)
def test_rules_about_modules_that_engines_load_as_one(tmp_path, pattern, differ) -> None:
    source = tiny_models.write(tmp_path / "source", hidden=128, intermediate=256, kv_heads=4)
    config = {"dynamic": [{"pattern": pattern, "bits": 8}]}
    target = (ServeTarget(engine="VLLM"),)
    report = planned(specification(source, "", "gptq", config, serve_targets=target))
    reasons = [finding.reason for finding in report.findings]
    assert ("FUSED_MODULES_DIFFER" in reasons) == differ


def test_what_a_plan_tells_the_rules(tmp_path) -> None:
    source = tiny_models.write(tmp_path / "source", hidden=128, intermediate=256, tied=False)
    target = (ServeTarget(engine="TRANSFORMERS"),)

    def reasons(config) -> set[str]:
        report = planned(specification(source, "", "gptq", config, serve_targets=target))
        return {finding.reason for finding in report.findings} - {"BUILTIN_TEXT_USED", PLUGIN}

    assert reasons({}) == set()
    assert reasons({"dynamic": [{"pattern": "mlp", "bits": 8}]}) == {"MODULE_SETTINGS_NOT_READ"}
    assert reasons({"dynamic": [{"pattern": "mlp", "exclude": True}]}) == {
        "MODULE_SETTINGS_NOT_READ"
    }
    # The head of 272 rows is no multiple of 32.
    assert reasons({"lm_head": True}) == {"SHAPE_NOT_PACKABLE"}
    desc_act = {"dynamic": [{"pattern": "mlp", "desc_act": True}]}
    assert reasons(desc_act) == {"MODULE_SETTINGS_NOT_READ", "ACTIVATION_ORDER_SLOW"}


def test_a_configuration_alone_tells_what_it_says_and_no_more() -> None:
    def artifact(method, **fields) -> Artifact:
        return configured_artifact(method_config(method, fields))

    assert artifact("gptq") == Artifact(method="gptq")
    assert artifact("awq") == Artifact(method="awq")
    assert artifact("aqlm") == AQLM
    known = artifact("gptq", bits=3, group_size=16, sym=False, desc_act=True)
    assert (known.bits, known.group_sizes) == ({3}, {16})
    assert (known.symmetric, known.desc_act) == (False, True)
    ruled = artifact("gptq", bits=4, sym=True, dynamic=[{"pattern": "a", "bits": 8, "sym": False}])
    assert (ruled.bits, ruled.symmetric, ruled.has_module_settings) == ({4, 8}, False, True)
    assert artifact("awq", format="GEMV").format == "GEMV"
    assert artifact("aqlm", out_group_size=4).out_group_size == 4
