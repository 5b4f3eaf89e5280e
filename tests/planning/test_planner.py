"""Plans: what they promise is what is written, and everything that is wrong is in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests import hosts, tiny_models
from tests.quantizing import planned, quantize, roots_of, run, specification, work_order

from quantd_server.engine.events import QuantizationResult, TensorEvent
from quantd_server.errors import QuantdError, Severity
from quantd_server.host.torch_build import TorchBuild
from quantd_server.planning import planner
from quantd_server.planning.inspection import inspect

EXACT = [
    ("bitsandbytes_8bit", {}),
    ("bitsandbytes_4bit", {"bnb_4bit_quant_type": "NF4"}),
    ("bitsandbytes_4bit", {"bnb_4bit_quant_storage": "BFLOAT16", "blocksize": 256}),
    ("gguf", {"file_type": "Q8_0"}),
    ("gguf", {"file_type": "Q4_K_M"}),
    ("gguf", {"file_type": "F16"}),
]
DOUBLE = ("bitsandbytes_4bit", {"bnb_4bit_quant_type": "NF4", "bnb_4bit_use_double_quant": True})


def output_name(method) -> str:
    return "output.gguf" if method == "gguf" else "output"


def weight_bytes(output: Path) -> int:
    files = [output] if output.is_file() else output.glob("*.safetensors")
    return sum(path.stat().st_size for path in files)


@pytest.mark.parametrize(("method", "config"), EXACT)
@pytest.mark.parametrize("shards", [1, 2])
def test_sizes_are_those_written(tmp_path, method, config, shards) -> None:
    source = tiny_models.write(tmp_path / "source", shards=shards, hidden=256, intermediate=512)
    spec = specification(source, tmp_path / output_name(method), method, config)
    report = planned(spec)
    *events, result = run(work_order(report))
    assert isinstance(result, QuantizationResult)
    assert report.plan.output_bytes == result.output_bytes == weight_bytes(Path(spec.output_uri))
    assert report.plan.types == result.types
    assert report.plan.source_bytes == result.source_bytes
    assert report.plan.bits_per_weight == pytest.approx(result.bits_per_weight)
    done = {event.name: event for event in events if isinstance(event, TensorEvent)}
    assert done.keys() == {tensor.target_name for tensor in report.tensors}
    for tensor in report.tensors:
        event = done[tensor.target_name]
        assert (tensor.target_type, tensor.target_bytes) == (event.target_type, event.size_bytes)
        assert (tensor.source_type, tensor.shape) == (event.source_type, event.shape)
        assert tensor.reason


def test_double_quantization_takes_a_few_bytes_less_than_planned(tmp_path) -> None:
    source = tiny_models.write(tmp_path / "source")
    spec = specification(source, tmp_path / "output", *DOUBLE)
    report = planned(spec)
    result = run(work_order(report))[-1]
    assert result.output_bytes == weight_bytes(tmp_path / "output")
    quantized = sum(tensor.action == "QUANTIZE" for tensor in report.tensors)
    assert 0 <= report.plan.output_bytes - result.output_bytes <= 8 * quantized


def test_planning_reads_no_weight_and_writes_nothing(tmp_path) -> None:
    source = tiny_models.write(tmp_path / "source")
    before = sorted(tmp_path.rglob("*"))
    weights = source / "model.safetensors"
    report = planned(specification(source, tmp_path / "new" / "output", "bitsandbytes_4bit"))
    data = bytearray(weights.read_bytes())
    data[-1000:] = b"\xff" * 1000  # NaNs, which only reading the weights could find
    weights.write_bytes(data)
    after = planned(specification(source, tmp_path / "new" / "output", "bitsandbytes_4bit"))
    assert (after.plan, after.tensors) == (report.plan, report.tensors)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("method", ["bitsandbytes_8bit", "gguf"])
def test_pages_add_up(tmp_path, method) -> None:
    source = tiny_models.write(tmp_path / "source")
    spec = specification(source, "", method)
    whole = planned(spec)
    assert whole.next_offset is None
    for page_size in (1, 7, len(whole.tensors) - 1, len(whole.tensors)):
        found, offset = [], 0
        while offset is not None:
            page = planner.plan(
                spec, roots_of(spec), hosts.NO_GPU, offset=offset, page_size=page_size
            )
            assert (page.plan, page.findings) == (whole.plan, whole.findings)
            assert len(page.tensors) <= page_size
            found += page.tensors
            offset = page.next_offset
        assert tuple(found) == whole.tensors


def test_pages_of_an_inspection_add_up(tmp_path) -> None:
    source = tiny_models.write(tmp_path / "source", shards=2)
    roots = roots_of(specification(source, "", "gguf"))
    whole = inspect(str(source), roots, hosts.NO_GPU, offset=0, page_size=10_000)
    found, offset = [], 0
    while offset is not None:
        page = inspect(str(source), roots, hosts.NO_GPU, offset=offset, page_size=5)
        found += page.tensors
        offset = page.next_offset
    assert tuple(found) == whole.tensors
    assert len(found) == whole.checkpoint.tensor_count == 20
    beyond = inspect(str(source), roots, hosts.NO_GPU, offset=1000, page_size=5)
    assert (beyond.tensors, beyond.next_offset) == ((), None)


def test_defaults_are_filled_in(tmp_path) -> None:
    source = tiny_models.write(tmp_path / "source")
    spec = planned(specification(source, "", "bitsandbytes_4bit")).spec
    assert spec.device == "CPU"
    assert spec.max_shard_size == 5_000_000_000
    config = spec.method.bitsandbytes_4bit
    # Those of transformers' BitsAndBytesConfig.
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_compute_dtype) == ("FP4", "FLOAT32")
    assert (config.bnb_4bit_quant_storage, config.blocksize) == ("UINT8", 64)
    assert config.bnb_4bit_use_double_quant is False
    assert planned(specification(source, "", "gguf")).spec.method.gguf.file_type == "Q4_K_M"


@pytest.mark.parametrize(
    "entry",
    [
        {"quant_method": "gptq", "bits": 4},
        {"load_in_4bit": True},
        {},
    ],
)
@pytest.mark.parametrize("method", ["bitsandbytes_8bit", "gguf"])
def test_an_already_quantized_source(tmp_path, method, entry) -> None:
    source = tiny_models.write(tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"quantization_config": entry}))
    report = planned(specification(source, tmp_path / output_name(method), method))
    assert not report.executable
    assert [finding.reason for finding in report.findings] == ["SOURCE_ALREADY_QUANTIZED"]
    assert report.plan is None


@pytest.mark.parametrize("method", ["bitsandbytes_8bit", "bitsandbytes_4bit", "gguf"])
def test_our_own_outputs_are_already_quantized(tmp_path, method) -> None:
    source = tiny_models.write(tmp_path / "source")
    output = tmp_path / output_name(method)
    quantize(source, output, method)
    report = planned(specification(output, "", method))
    assert [finding.reason for finding in report.findings] == ["SOURCE_ALREADY_QUANTIZED"]


def test_all_problems_are_told_at_once_and_errors_first(tmp_path) -> None:
    source = tiny_models.write(tmp_path / "source")
    config = {"llm_int8_skip_modules": ["no_such_module", "("]}
    spec = specification(source, source / "output.gguf", "bitsandbytes_8bit", config, device="MPS")
    report = planned(spec)
    assert sorted(finding.reason for finding in report.findings) == [
        "DEVICE_NOT_AVAILABLE",
        "OUTPUT_FORM",
        "OUTPUT_INSIDE_SOURCE",
        "PATTERN_INVALID",
        "PATTERN_UNMATCHED",
    ]
    assert report.findings[-1].severity is Severity.WARNING


def test_skipping_everything_is_an_error(tmp_path) -> None:
    source = tiny_models.write(tmp_path / "source")
    config = {"llm_int8_skip_modules": ["model"]}
    report = planned(specification(source, "", "bitsandbytes_8bit", config))
    assert [finding.reason for finding in report.findings] == ["NOTHING_TO_QUANTIZE"]


def test_a_storage_type_that_the_codes_do_not_fill(tmp_path) -> None:
    source = tiny_models.write(tmp_path / "source", hidden=60, heads=2, kv_heads=1)
    spec = specification(source, "", "bitsandbytes_4bit", {"bnb_4bit_quant_storage": "FLOAT64"})
    report = planned(spec)
    finding, crossing = report.findings
    assert crossing.reason == "BLOCKS_CROSS_ROWS"
    assert finding.reason == "QUANT_STORAGE_UNFIT"
    assert finding.subject_count == len(finding.subjects) == 4


@pytest.mark.parametrize(
    ("method", "reason"),
    [("bitsandbytes_4bit", "OUTPUT_HEAD_MISSING"), ("gguf", "GGUF_TENSOR_MISSING")],
)
def test_a_missing_output_head(tmp_path, method, reason) -> None:
    source = tiny_models.write(tmp_path / "source", tied=True)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    report = planned(specification(source, "", method))
    assert [finding.reason for finding in report.findings] == [reason]


def test_a_gguf_source_is_for_gguf_only(tmp_path) -> None:
    source = tiny_models.write(tmp_path / "source")
    quantize(source, tmp_path / "bf16.gguf", "gguf", {"file_type": "BF16"})
    with pytest.raises(QuantdError) as caught:
        planned(specification(tmp_path / "bf16.gguf", "", "bitsandbytes_8bit"))
    assert caught.value.reason == "SOURCE_FORMAT"


def test_an_architecture_that_has_no_gguf_form(tmp_path) -> None:
    source = tiny_models.write(tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"model_type": "never_heard_of"}))
    report = planned(specification(source, tmp_path / "x.gguf", "gguf"))
    assert not report.executable
    assert [finding.kind for finding in report.findings] == ["precondition"]


def test_blocks_that_cross_rows_are_a_warning(tmp_path) -> None:
    source = tiny_models.write(tmp_path / "source", intermediate=160)
    report = planned(specification(source, "", "bitsandbytes_4bit"))
    (finding,) = report.findings
    assert (finding.reason, finding.severity) == ("BLOCKS_CROSS_ROWS", Severity.WARNING)
    assert finding.subject_count == 2
    assert all(name.endswith("down_proj.weight") for name in finding.subjects)
    config = {"blocksize": 32}
    assert not planned(specification(source, "", "bitsandbytes_4bit", config)).findings


@pytest.mark.parametrize("device", ["CUDA", "ROCM", "XPU", "MPS"])
@pytest.mark.parametrize("host", [hosts.NO_GPU, hosts.APPLE])
def test_a_device_that_is_not_here(tmp_path, host, device) -> None:
    source = tiny_models.write(tmp_path / "source")
    report = planned(specification(source, "", "bitsandbytes_4bit", device=device), host)
    (finding,) = report.findings
    assert (finding.reason, finding.field) == ("DEVICE_NOT_AVAILABLE", "spec.device")


def test_a_cuda_device_that_is_here(tmp_path) -> None:
    source = tiny_models.write(tmp_path / "source")
    spec = specification(source, "", "bitsandbytes_4bit", device="CUDA")
    assert planned(spec, hosts.H100).executable
    assert not planned(spec, hosts.with_packages(hosts.H100, torch="")).executable
    assert not planned(specification(source, "", "gguf", device="CUDA"), hosts.H100).executable


@pytest.mark.parametrize(
    ("torch", "why"),
    [
        (None, "not known yet"),
        (hosts.CPU_BUILD, "is built for the CPU"),
        (TorchBuild(failure="ImportError: libcudart"), "ImportError: libcudart"),
    ],
)
def test_a_cuda_device_that_torch_cannot_use(tmp_path, torch, why) -> None:
    source = tiny_models.write(tmp_path / "source")
    spec = specification(source, "", "bitsandbytes_4bit", device="CUDA")
    (finding,) = planned(spec, hosts.with_torch(hosts.H100, torch)).findings
    assert finding.reason == "DEVICE_NOT_AVAILABLE"
    assert why in finding.message
    assert finding.remedy.endswith("or leave device out, or set it to CPU")
