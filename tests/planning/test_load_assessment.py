"""Which engines can load a checkpoint on which hosts, and what it would take."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import hosts, sparse_checkpoint, tiny_models
from tests.quantizing import quantize

from quantd_server.errors import Severity
from quantd_server.host.description import Host
from quantd_server.host.torch_build import TorchBuild
from quantd_server.planning.config_parsing.parsing import parse_config
from quantd_server.planning.inspection import inspect
from quantd_server.planning.load_assessment import (
    assess_loads,
    cache_bytes_per_token,
    weight_bytes,
)
from quantd_server.planning.report import (
    CheckpointDescription,
    DtypeSummary,
    ExistingQuantization,
    InspectionReport,
    LoadAssessment,
)
from quantd_server.planning.roots import Roots

GIB = 1 << 30


def description(
    parameters: int = 8 * 10**9, dtype: str = "BF16", size: int | None = None, **fields: Any
) -> CheckpointDescription:
    """Llama 3 8B, but for ``fields``."""
    bits = {"F32": 32, "BF16": 16, "F16": 16}.get(dtype, 4)
    size = parameters * bits // 8 if size is None else size
    facts: dict[str, Any] = {
        "uri": "/m",
        "format": "SAFETENSORS",
        "model_type": "llama",
        "architecture": "LlamaForCausalLM",
        "parameter_count": parameters,
        "size_bytes": size,
        "file_count": 4,
        "tensor_count": 291,
        "dtypes": (
            DtypeSummary(dtype=dtype, tensor_count=1, element_count=parameters, size_bytes=size),
        ),
        "tied_embeddings": False,
        "block_count": 32,
        "hidden_size": 4096,
        "context_length": 131072,
        "vocab_size": 128256,
        "head_count": 32,
        "kv_head_count": 8,
        "head_dim": 128,
        "tokenizer": "BPE",
    }
    return CheckpointDescription(**facts | fields)


def quantized(method: str, **config: Any) -> dict[str, Any]:
    text = json.dumps({"quant_method": method} | config)
    return {
        "quantization": ExistingQuantization(
            quant_method=method, method=parse_config(text).method, config_json=text
        )
    }


def load(
    checkpoint: CheckpointDescription,
    host: Host,
    engine: str,
    device: str,
    context_length: int | None = None,
) -> LoadAssessment:
    """The assessment for one engine on the first device of a kind."""
    found = [
        load
        for load in assess_loads(checkpoint, host, context_length)
        if (load.engine, load.device, load.device_index) == (engine, device, 0)
    ]
    assert len(found) == 1
    errors = any(finding.severity is Severity.ERROR for finding in found[0].findings)
    assert found[0].loadable == (not errors)
    return found[0]


def reasons(*arguments: Any) -> list[str]:
    return [finding.reason for finding in load(*arguments).findings]


def test_a_plain_checkpoint_on_every_host():
    model = description()
    assert reasons(model, hosts.H100, "TRANSFORMERS", "CUDA") == []
    assert reasons(model, hosts.H100, "VLLM", "CUDA") == []
    assert reasons(model, hosts.H100, "SGLANG", "CUDA") == []
    assert reasons(model, hosts.NO_GPU, "TRANSFORMERS", "CPU") == []
    for parameters in (8 * 10**9, 10**12):  # its memory is not the question
        absent = description(parameters), hosts.NO_GPU, "VLLM", "CPU"
        assert reasons(*absent) == ["CUDA_DEVICE_MISSING"]
    assert reasons(model, hosts.T4, "VLLM", "CUDA") == ["BFLOAT16_SLOW", "MEMORY_TOO_SMALL"]
    assert reasons(model, hosts.APPLE, "TRANSFORMERS", "MPS") == []
    assert reasons(model, hosts.APPLE, "VLLM", "CPU") == ["CUDA_DEVICE_MISSING"]
    for host in (hosts.NO_GPU, hosts.T4, hosts.H100, hosts.APPLE):
        assert reasons(model, host, "LLAMA_CPP", "CPU") == ["ENGINE_CANNOT_READ"]


def test_each_engine_is_assessed_on_each_device_it_may_use():
    loads = assess_loads(description(), hosts.TWO_H100, None)
    assert [(load.engine, load.device, load.device_index) for load in loads] == [
        ("TRANSFORMERS", "CPU", 0),
        ("TRANSFORMERS", "CUDA", 0),
        ("TRANSFORMERS", "CUDA", 1),
        ("VLLM", "CUDA", 0),
        ("VLLM", "CUDA", 1),
        ("SGLANG", "CUDA", 0),
        ("SGLANG", "CUDA", 1),
        ("LLAMA_CPP", "CPU", 0),
        ("LLAMA_CPP", "CUDA", 0),
        ("LLAMA_CPP", "CUDA", 1),
    ]


def test_cache_of_published_models():
    # 128 KiB a token: the figure that is known of Llama 3 8B with 16-bit keys and values.
    assert cache_bytes_per_token(description()) == 128 * 1024
    # SmolLM2 135M: 30 blocks, 3 heads of 64, keys and values, 2 bytes.
    small = description(block_count=30, kv_head_count=3, head_dim=64)
    assert cache_bytes_per_token(small) == 30 * 3 * 64 * 2 * 2


@pytest.mark.parametrize(
    ("own", "asked", "tokens"),
    [(131072, None, 8192), (2048, None, 2048), (0, None, 8192), (2048, 4096, 4096)],
)
def test_context_length(own, asked, tokens):
    assessment = load(description(context_length=own), hosts.H100, "VLLM", "CUDA", asked)
    assert assessment.kv_cache_bytes == tokens * 128 * 1024


def test_weights_in_memory():
    parameters = 10**9
    for dtype, bytes_each in (("F32", 4), ("F16", 2), ("BF16", 2)):
        plain = description(parameters, dtype)
        assert weight_bytes(plain, "TRANSFORMERS") == bytes_each * parameters
        assert weight_bytes(plain, "VLLM") == weight_bytes(plain, "SGLANG") == 2 * parameters
    packed = description(parameters, "U8", size=123, **quantized("bitsandbytes"))
    assert weight_bytes(packed, "TRANSFORMERS") == weight_bytes(packed, "VLLM") == 123
    gptq = description(parameters, "I32", size=456, **quantized("gptq"))
    assert weight_bytes(gptq, "VLLM") == 456
    file = description(parameters, "Q4_K", size=789, format="GGUF")
    assert weight_bytes(file, "LLAMA_CPP") == weight_bytes(file, "VLLM") == 789
    assert weight_bytes(file, "TRANSFORMERS") == 4 * parameters
    in_blocks = msgspec.structs.replace(file, model_type="qwen35")
    assert weight_bytes(in_blocks, "TRANSFORMERS") == 789


def test_existing_quantizations():
    nf4 = description(size=5 * 10**9, **quantized("bitsandbytes", load_in_4bit=True))
    assert reasons(nf4, hosts.T4, "TRANSFORMERS", "CUDA") == ["COMPUTE_DTYPE_SLOW"]
    assert "COMPUTE_CAPABILITY_TOO_LOW" in reasons(nf4, hosts.V100, "SGLANG", "CUDA")
    odd = quantized("bitsandbytes", load_in_4bit=True, bnb_4bit_quant_storage="bfloat16")
    assert "QUANT_STORAGE_NOT_READ" in reasons(description(**odd), hosts.H100, "VLLM", "CUDA")
    int8 = description(**quantized("bitsandbytes", load_in_8bit=True))
    assert "INT8_TENSOR_CORES_MISSING" in reasons(int8, hosts.V100, "TRANSFORMERS", "CUDA")
    assert "INT8_TENSOR_CORES_MISSING" not in reasons(int8, hosts.T4, "TRANSFORMERS", "CUDA")
    aqlm = description(**quantized("aqlm"))
    assert reasons(aqlm, hosts.H100, "VLLM", "CUDA") == ["ENGINE_CANNOT_READ"]
    awq = description(size=4 * 10**9, **quantized("awq"))
    assert reasons(awq, hosts.V100, "VLLM", "CUDA") == ["COMPUTE_CAPABILITY_TOO_LOW"]
    assert reasons(awq, hosts.H100, "VLLM", "CUDA") == []
    for bits, expected in ((4, []), (3, ["GPTQ_GRID_NOT_READ"])):
        gptq = description(size=4 * 10**9, **quantized("gptq", bits=bits, group_size=128, sym=True))
        assert reasons(gptq, hosts.H100, "VLLM", "CUDA") == expected
        assert reasons(gptq, hosts.H100, "TRANSFORMERS", "CUDA") == []
    hqq = load(description(**quantized("hqq")), hosts.H100, "VLLM", "CUDA")
    assert hqq.loadable
    assert [finding.reason for finding in hqq.findings] == ["QUANTIZATION_NOT_ASSESSED"]


def test_gguf_files_of_any_architecture():
    known = description(10**9, "Q4_K", format="GGUF", model_type="llama")
    assert reasons(known, hosts.NO_GPU, "LLAMA_CPP", "CPU") == []
    assert reasons(known, hosts.APPLE, "LLAMA_CPP", "MPS") == []
    assert reasons(known, hosts.NO_GPU, "TRANSFORMERS", "CPU") == ["GGUF_DEQUANTIZED_AT_LOAD"]
    assert reasons(known, hosts.H100, "VLLM", "CUDA") == []
    without = hosts.with_packages(hosts.H100, vllm_gguf_plugin="")
    assert reasons(known, without, "VLLM", "CUDA") == ["PACKAGE_MISSING"]
    other = msgspec.structs.replace(known, model_type="never_heard_of")
    assert reasons(other, hosts.NO_GPU, "LLAMA_CPP", "CPU") == []
    assert "GGUF_ARCHITECTURE_NOT_READ" in reasons(other, hosts.NO_GPU, "TRANSFORMERS", "CPU")


def test_missing_packages_are_named_with_versions():
    host = hosts.with_packages(hosts.H100, bitsandbytes="0.45.0", vllm="")
    nf4 = description(**quantized("bitsandbytes", load_in_4bit=True))
    findings = {f.reason: f for f in load(nf4, host, "VLLM", "CUDA").findings}
    assert "vllm is not installed" in findings["PACKAGE_MISSING"].message
    assert "0.45.0" in findings["PACKAGE_TOO_OLD"].message
    assert findings["PACKAGE_TOO_OLD"].remedy == "pip install 'bitsandbytes>=0.46.1'"
    gguf = description(format="GGUF", size=1)
    assert reasons(gguf, hosts.bare(hosts.NO_GPU), "LLAMA_CPP", "CPU") == ["LLAMA_CPP_NOT_FOUND"]


def memory_finding(free: int, host: Host, **arguments: Any) -> tuple[str, str, str]:
    (finding,) = load(
        description(), hosts.with_free_memory(host, free), "VLLM", "CUDA", **arguments
    ).findings
    return finding.reason, finding.message, finding.remedy


def test_too_little_memory_says_how_much_and_what_to_do():
    # 16 GB of weights, 128 KiB of cache a token.
    reason, message, remedy = memory_finding(24 * 10**9, hosts.H100, context_length=100_000)
    assert reason == "MEMORY_TOO_SMALL"
    assert "16.0 GB of weights and 13.1 GB of cache for 100,000 tokens" in message
    assert "24.0 GB of 85.9 GB are free on NVIDIA H100" in message
    assert remedy == f"limit the context to {int((0.9 * 24e9 - 16e9) / 131072):,} tokens"
    assert memory_finding(10 * 10**9, hosts.TWO_H100)[2].startswith("spread it over the 2 cards")
    assert memory_finding(1 * 10**9, hosts.H100)[2] == "free 16.1 GB there first"
    (finding,) = load(description(10**12), hosts.H100, "VLLM", "CUDA").findings
    assert finding.remedy.startswith("quantize it")
    assert memory_finding(18 * 10**9, hosts.H100)[0] == "MEMORY_TIGHT"


@given(
    free=st.integers(0, 1 << 42),
    parameters=st.integers(1, 10**12),
    context=st.integers(1, 10**8),
)
def test_loadable_is_what_fits(free, parameters, context):
    checkpoint = description(parameters)
    host = hosts.with_free_memory(hosts.TWO_H100, free)
    assessment = load(checkpoint, host, "VLLM", "CUDA", context)
    assert assessment.loadable == (assessment.weight_bytes + assessment.kv_cache_bytes <= free)
    assert all(finding.remedy for finding in assessment.findings)


# -- with checkpoints on disk ------------------------------------------------------------------


def inspected(path: Any, host: Host = hosts.H100, **options: Any) -> InspectionReport:
    roots = Roots.of((str(path.parent),), ())
    return inspect(str(path), roots, host, offset=0, page_size=0, **options)


def test_what_the_server_writes_is_recognized(tmp_path):
    source = tiny_models.write(tmp_path / "source")
    assert {load.engine for load in inspected(source).loads if load.loadable} == {
        "TRANSFORMERS",
        "VLLM",
        "SGLANG",
    }
    quantize(source, tmp_path / "int8", "bitsandbytes_8bit")
    quantize(source, tmp_path / "nf4", "bitsandbytes_4bit", {"bnb_4bit_quant_storage": "BFLOAT16"})
    quantize(source, tmp_path / "q8.gguf", "gguf", {"file_type": "Q8_0"})
    for name, expected in {
        "int8": {"TRANSFORMERS", "VLLM", "SGLANG"},
        "nf4": {"TRANSFORMERS"},
        "q8.gguf": {"TRANSFORMERS", "VLLM", "SGLANG", "LLAMA_CPP"},
    }.items():
        report = inspected(tmp_path / name)
        assert {load.engine for load in report.loads if load.loadable} == expected
        stored = [load for load in report.loads if load.engine != "TRANSFORMERS"]
        assert {load.weight_bytes for load in stored} == {report.checkpoint.size_bytes}


def test_a_context_longer_than_the_models(tmp_path):
    source = tiny_models.write(tmp_path / "source")
    assert inspected(source, context_length=128).findings == ()
    (finding,) = inspected(source, context_length=129).findings
    assert (finding.reason, finding.field) == ("CONTEXT_BEYOND_MODEL", "context_length")


def test_a_missing_output_head(tmp_path):
    source = tiny_models.write(tmp_path / "source", tied=True)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    assert [finding.reason for finding in inspected(source).findings] == ["OUTPUT_HEAD_MISSING"]
    encoder = config | {"tie_word_embeddings": False, "architectures": ["LlamaModel"]}
    (source / "config.json").write_text(json.dumps(encoder))
    assert inspected(source).findings == ()


def test_a_mixture_of_experts_of_5000_tensors_and_140_gb(tmp_path):
    size = sparse_checkpoint.write(tmp_path / "large")
    report = inspected(tmp_path / "large", hosts.TWO_H100)
    assert report.checkpoint.tensor_count == sparse_checkpoint.TENSORS
    assert report.checkpoint.size_bytes == size == pytest.approx(140e9, rel=0.01)
    (finding,) = report.findings
    assert finding.reason == "MIXTURE_OF_EXPERTS"
    assert finding.subject_count == 34 * 46 * 3
    assert [load.engine for load in report.loads if load.loadable] == ["TRANSFORMERS"]
    cards = [load for load in report.loads if load.device == "CUDA"]
    spread = [
        finding.remedy for load in cards for finding in load.findings if load.engine == "VLLM"
    ]
    assert all(remedy.startswith("spread it over the 2 cards") for remedy in spread)


def test_missing_blocks(tmp_path):
    source = tiny_models.write(tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    assert [finding.reason for finding in inspected(source).findings] == ["BLOCKS_MISSING"]


@pytest.mark.parametrize(
    ("host", "kind"), [(hosts.MI300X, "ROCM"), (hosts.ARC, "XPU"), (hosts.APPLE, "MPS")]
)
def test_transformers_is_told_about_on_gpus_of_all_makers(host, kind) -> None:
    checkpoint = description(parameters=10**9)
    assert load(checkpoint, host, "TRANSFORMERS", kind).loadable
    other = hosts.with_torch(host, hosts.CPU_BUILD)
    on_gpu = load(checkpoint, other, "TRANSFORMERS", kind)
    assert [finding.reason for finding in on_gpu.findings] == ["TORCH_BUILT_FOR_OTHER_DEVICE"]
    assert load(checkpoint, other, "TRANSFORMERS", "CPU").loadable


def test_a_torch_that_does_not_work_is_said_once() -> None:
    broken = hosts.with_torch(hosts.H100, TorchBuild(failure="OSError: libcudnn.so.9"))
    for device in ("CPU", "CUDA"):
        found = load(description(parameters=10**9), broken, "TRANSFORMERS", device)
        assert [finding.reason for finding in found.findings] == ["TORCH_DOES_NOT_WORK"]
    file = description(parameters=10**9, format="GGUF")
    assert load(file, broken, "LLAMA_CPP", "CUDA").loadable


def test_a_device_that_does_not_tell_its_memory() -> None:
    device = msgspec.structs.replace(
        hosts.ARC.devices[1], memory_total_bytes=0, memory_free_bytes=0
    )
    host = msgspec.structs.replace(hosts.ARC, devices=(hosts.ARC.devices[0], device))
    found = load(description(), host, "TRANSFORMERS", "XPU")
    assert [finding.reason for finding in found.findings] == ["MEMORY_UNKNOWN"]
    assert found.loadable
