"""Bad input through the real server: each a coded error, nothing left behind, still serving."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from tests import tiny_models
from tests.api.server_process import server_process
from tests.checkpoint.builders import safetensors_bytes
from tests.quantizing import quantize

import quantd
from quantd import v1

NF4 = quantd.bitsandbytes_4bit("nf4")
Q8_0 = quantd.gguf("Q8_0")
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
NOT_FOUND = grpc.StatusCode.NOT_FOUND
INVALID = grpc.StatusCode.INVALID_ARGUMENT
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """The folder `served` is the server's; `elsewhere` is not."""
    base = tmp_path_factory.mktemp("base")
    for name in ("served", "elsewhere"):
        tiny_models.write(base / name / "model")
    return base


@pytest.fixture(scope="module")
def client(base):
    """A client of a server, which has to be well after all of it."""
    with server_process(base / "served") as server, quantd.Client(server.address) as client:
        client.wait_until_serving()
        yield client
        output = base / "served" / "good"
        assert client.quantize(base / "served" / "model", output, NF4).result().output_bytes > 0
        assert not server.events("incident")
        client.close()
        assert server.stop() == 0


@pytest.fixture
def folder(base, client):
    """A new folder that the server may use; afterwards it has to accept a job there."""
    folder = base / "served" / "case"
    folder.mkdir()
    yield folder
    assert client.plan(base / "served" / "model", NF4, output=folder / "after").executable
    shutil.rmtree(folder)


def tree(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def refused(
    base: Path, call: Callable[..., object], code: grpc.StatusCode, reason: str, *arguments: object
) -> str:
    """Asserts that a call is refused, and leaves nothing; returns the error's text."""
    before = tree(base)
    with pytest.raises(quantd.QuantdError) as caught:
        call(*arguments)
    error = caught.value
    assert (error.code, error.reason) == (code, reason), error
    assert error.details.domain == "quantd"
    assert "Traceback" not in str(error)
    # No path of the server, unless it is what the caller wrote.
    assert reason == "SOURCE_NOT_FOUND" or str(base) not in str(error)
    problems = error.violations + error.preconditions
    if code in (INVALID, PRECONDITION):
        assert reason in [problem.reason for problem in problems]
    assert tree(base) == before
    return str(error)


# -- damaged sources -----------------------------------------------------------------------------


def edit_config(source: Path, **changes: object) -> None:
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | changes))


def replace_weights(source: Path, header: object, data: bytes = b"", **options: int) -> None:
    (source / "model.safetensors").write_bytes(safetensors_bytes(header, data, **options))


def entry(begin: int, end: int, dtype: str = "F32", shape: tuple[int, ...] = (2,)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def truncate(source: Path) -> None:
    os.truncate(source / "model.safetensors", 5000)


def empty(source: Path) -> None:
    (source / "model.safetensors").write_bytes(b"")


def no_weights(source: Path) -> None:
    (source / "model.safetensors").unlink()


def long_header(source: Path) -> None:
    replace_weights(source, {}, length=1 << 20)


def overlapping(source: Path) -> None:
    replace_weights(source, {"a": entry(0, 8), "b": entry(4, 12)}, bytes(12))


def out_of_range(source: Path) -> None:
    replace_weights(source, {"a": entry(0, 8), "b": entry(8, 16)}, bytes(12))


def hole(source: Path) -> None:
    replace_weights(source, {"a": entry(0, 8), "b": entry(12, 20)}, bytes(20))


def unknown_dtype(source: Path) -> None:
    replace_weights(source, {"a": entry(0, 8, dtype="Q4")}, bytes(8))


def wrong_product(source: Path) -> None:
    replace_weights(source, {"a": entry(0, 8, shape=(3,))}, bytes(8))


def overflowing_product(source: Path) -> None:
    replace_weights(source, {"a": entry(0, 0, shape=(2**32, 2**32))})


def duplicate_key(source: Path) -> None:
    one = json.dumps(entry(0, 8)).encode()
    replace_weights(source, b'{"a":' + one + b',"a":' + one + b"}", bytes(8))


def header_of_100_mb(source: Path) -> None:
    replace_weights(source, b"{" + b" " * 99_999_998 + b"}")


def header_beyond_the_limit(source: Path) -> None:
    with (source / "model.safetensors").open("wb") as file:
        file.write((1 << 40).to_bytes(8, "little"))
        file.truncate(200 << 20)


def many_tensors(source: Path) -> None:
    entries = b",".join(
        b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % n for n in range(300_000)
    )
    replace_weights(source, b"{" + entries + b"}")


def deep_header(source: Path) -> None:
    replace_weights(source, b'{"a":' + b"[" * 2_000_000 + b"]" * 2_000_000 + b"}")


def absent_shard(source: Path) -> None:
    (source / "model.safetensors").rename(source / "model-00001-of-00002.safetensors")
    weight_map = {
        Q_PROJ: "model-00001-of-00002.safetensors",
        "x": "model-00002-of-00002.safetensors",
    }
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def index_that_leads_out(source: Path) -> None:
    (source / "model.safetensors").unlink()
    index = {"weight_map": {"x": "../../model/model.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))


def shards_without_index(source: Path) -> None:
    (source / "model.safetensors").rename(source / "model-00001-of-00001.safetensors")


def broken_config(source: Path) -> None:
    (source / "config.json").write_text('{"model_type": "llama",')


def config_list(source: Path) -> None:
    (source / "config.json").write_text("[]")


def no_config(source: Path) -> None:
    (source / "config.json").unlink()


def pickles(source: Path) -> None:
    (source / "model.safetensors").rename(source / "pytorch_model.bin")


def a_pipe(source: Path) -> None:
    (source / "model.safetensors").unlink()
    os.mkfifo(source / "model.safetensors")


def weights_elsewhere(source: Path) -> None:
    (source / "model.safetensors").unlink()
    elsewhere = source.parents[2] / "elsewhere" / "model"
    (source / "model.safetensors").symlink_to(elsewhere / "model.safetensors")


DAMAGES = [
    (truncate, PRECONDITION, "DATA_TRUNCATED"),
    (empty, PRECONDITION, "FILE_EMPTY"),
    (no_weights, NOT_FOUND, "NO_WEIGHTS"),
    (long_header, PRECONDITION, "HEADER_TRUNCATED"),
    (overlapping, PRECONDITION, "OFFSETS_OVERLAP"),
    (out_of_range, PRECONDITION, "DATA_TRUNCATED"),
    (hole, PRECONDITION, "DATA_HOLE"),
    (unknown_dtype, PRECONDITION, "DTYPE_UNKNOWN"),
    (wrong_product, PRECONDITION, "SIZE_MISMATCH"),
    (overflowing_product, PRECONDITION, "SIZE_MISMATCH"),
    (duplicate_key, PRECONDITION, "DUPLICATE_KEY"),
    (header_of_100_mb, PRECONDITION, "NO_WEIGHTS"),
    (header_beyond_the_limit, PRECONDITION, "HEADER_TOO_LARGE"),
    (many_tensors, PRECONDITION, "TOO_MANY_TENSORS"),
    (deep_header, PRECONDITION, "HEADER_INVALID_JSON"),
    (absent_shard, NOT_FOUND, "SHARD_MISSING"),
    (index_that_leads_out, PRECONDITION, "PATH_ESCAPES_CHECKPOINT"),
    (shards_without_index, NOT_FOUND, "INDEX_MISSING"),
    (broken_config, PRECONDITION, "JSON_INVALID"),
    (config_list, PRECONDITION, "JSON_NOT_AN_OBJECT"),
    (no_config, NOT_FOUND, "CONFIG_MISSING"),
    (pickles, PRECONDITION, "PICKLE_ONLY"),
    (a_pipe, PRECONDITION, "NOT_A_REGULAR_FILE"),
    (weights_elsewhere, PRECONDITION, "PATH_ESCAPES_CHECKPOINT"),
]


@pytest.mark.parametrize(
    ("damage", "code", "reason"), DAMAGES, ids=[damage.__name__ for damage, _, _ in DAMAGES]
)
def test_a_damaged_source(base, client, folder, damage, code, reason) -> None:
    source = tiny_models.write(folder / "source")
    damage(source)
    refused(base, client.inspect, code, reason, source)
    refused(base, client.plan, code, reason, source, NF4)
    refused(base, client.quantize, code, reason, source, folder / "out", NF4)
    refused(base, client.quantize, code, reason, source, folder / "out.gguf", Q8_0)


def test_a_damaged_gguf_source(base, client, folder) -> None:
    source = folder / "source.gguf"
    quantize(base / "served" / "model", source, "gguf", {"file_type": "F16"})
    data = source.read_bytes()
    for damaged in (b"", data[:3], b"GGUX" + data[4:], data[:1000], data[:-1000]):
        source.write_bytes(damaged)
        before = tree(base)
        with pytest.raises(quantd.FailedPreconditionError) as caught:
            client.quantize(source, folder / "out.gguf", Q8_0)
        assert caught.value.reason
        assert str(base) not in str(caught.value)
        assert tree(base) == before


# -- sources that cannot be quantized ------------------------------------------------------------


def test_an_already_quantized_source(base, client, folder) -> None:
    source = tiny_models.write(folder / "source")
    edit_config(source, quantization_config={"quant_method": "gptq", "bits": 4})
    assert client.inspect(source).checkpoint.quantization.quant_method == "gptq"
    reason = "SOURCE_ALREADY_QUANTIZED"
    refused(base, client.quantize, PRECONDITION, reason, source, folder / "out", NF4)
    refused(base, client.quantize, PRECONDITION, reason, source, folder / "x.gguf", Q8_0)
    plan = client.plan(source, NF4)
    assert not plan.executable
    assert [finding.reason for finding in plan.findings] == [reason]


def test_an_architecture_that_gguf_does_not_have(base, client, folder) -> None:
    source = tiny_models.write(folder / "source")
    edit_config(source, model_type="never_heard_of")
    before = tree(base)
    with pytest.raises(quantd.FailedPreconditionError) as caught:
        client.quantize(source, folder / "x.gguf", Q8_0)
    assert "never_heard_of" in str(caught.value)
    assert tree(base) == before


@pytest.mark.parametrize(("method", "value"), [(NF4, np.nan), (Q8_0, np.inf)])
def test_weights_that_are_not_finite(base, client, folder, method, value) -> None:
    weights = tiny_models.weights(tiny_models.config())[Q_PROJ]
    weights[1, 2] = value
    source = tiny_models.write(folder / "source", changes={Q_PROJ: weights})
    output = folder / ("out.gguf" if method is Q8_0 else "out")
    before = tree(base)
    with pytest.raises(quantd.JobFailed) as caught:
        client.quantize(source, output, method).result()
    error = caught.value
    assert (error.code, error.reason) == (PRECONDITION, "NON_FINITE_WEIGHTS")
    assert Q_PROJ in error.message and "element 66" in error.message
    assert error.job.state == v1.JobState.Value("JOB_STATE_FAILED")
    assert tree(base) == before
    stream = client.quantize(source, output, method, allow_non_finite=True)
    warnings = [event.warning for event in stream if event.WhichOneof("event") == "warning"]
    assert stream.result().output_bytes > 0
    assert [warning.reason for warning in warnings] == ["NON_FINITE_WEIGHTS"]


# -- outputs -------------------------------------------------------------------------------------


def test_an_output_that_is_not_empty(base, client, folder) -> None:
    source = base / "served" / "model"
    (folder / "out").mkdir()
    (folder / "out" / "mine").write_text("mine")
    (folder / "out.gguf").write_text("mine")
    reason = "OUTPUT_NOT_EMPTY"
    refused(base, client.quantize, PRECONDITION, reason, source, folder / "out", NF4)
    refused(base, client.quantize, PRECONDITION, reason, source, folder / "out.gguf", Q8_0)
    assert (folder / "out.gguf").read_text() == "mine"


def test_an_output_inside_the_source(base, client, folder) -> None:
    source = tiny_models.write(folder / "source")
    (folder / "link").symlink_to(source)
    for output in (source / "out", folder / "link" / "out", source / ".." / "source" / "out"):
        refused(base, client.quantize, INVALID, "OUTPUT_INSIDE_SOURCE", source, output, NF4)


def test_paths_outside_the_roots(base, client, folder) -> None:
    source = base / "served" / "model"
    (folder / "link").symlink_to(base / "elsewhere")
    outside = [
        str(base / "elsewhere" / "model"),
        str(folder / "link" / "model"),
        f"{base}/served/../elsewhere/model",
        f"file://{base}/served/%2e%2e/elsewhere/model",
        "/etc",
    ]
    reason = "PATH_OUTSIDE_ROOTS"
    for path in outside:
        refused(base, client.inspect, INVALID, reason, path)
        refused(base, client.quantize, INVALID, reason, path, folder / "out", NF4)
        refused(base, client.quantize, INVALID, reason, source, f"{path}/out", NF4)


@pytest.mark.parametrize("uri", ["model", "hf:owner/name", "s3://bucket/x", "file://host/x"])
def test_uris_that_name_no_path_here(base, client, folder, uri) -> None:
    source, reason = base / "served" / "model", "URI_UNSUPPORTED"
    refused(base, client.inspect, INVALID, reason, uri)
    refused(base, client.quantize, INVALID, reason, source, uri, NF4)


def test_names_that_no_file_system_takes(base, client, folder) -> None:
    source, name = base / "served" / "model", "n" * 300
    reason = "OUTPUT_NAME_TOO_LONG"
    refused(base, client.inspect, NOT_FOUND, "SOURCE_NOT_FOUND", folder / name)
    refused(base, client.quantize, INVALID, reason, source, folder / name, NF4)
    refused(base, client.quantize, INVALID, reason, source, folder / name / "x", NF4)


def test_nothing_at_the_source(base, client, folder) -> None:
    nothing, reason = folder / "nothing", "SOURCE_NOT_FOUND"
    refused(base, client.inspect, NOT_FOUND, reason, nothing)
    refused(base, client.plan, NOT_FOUND, reason, nothing, NF4)
    refused(base, client.quantize, NOT_FOUND, reason, nothing, folder / "out", NF4)


def test_a_disk_too_small(base, client, folder) -> None:
    """A source whose result would be four times what is free; it takes no disk itself."""
    source = tiny_models.write(folder / "source")
    columns = 1 << 20
    rows = 8 * shutil.disk_usage(folder).free // columns
    header = {Q_PROJ: entry(0, 2 * rows * columns, dtype="BF16", shape=(rows, columns))}
    replace_weights(source, header)
    try:
        os.truncate(
            source / "model.safetensors",
            (source / "model.safetensors").stat().st_size + 2 * rows * columns,
        )
    except OSError as error:
        pytest.skip(f"no sparse file of that size here: {error}")
    text = refused(
        base, client.quantize, PRECONDITION, "DISK_TOO_SMALL", source, folder / "out", NF4
    )
    assert "bytes" in text


def test_several_problems_are_told_at_once(base, client, folder) -> None:
    source = tiny_models.write(folder / "source")
    edit_config(source, quantization_config={"quant_method": "awq"})
    before = tree(base)
    with pytest.raises(quantd.InvalidArgumentError) as caught:
        client.quantize(source, source / "out.gguf", NF4)
    error = caught.value
    assert [problem.reason for problem in error.preconditions] == ["SOURCE_ALREADY_QUANTIZED"]
    assert {problem.reason for problem in error.violations} == {
        "OUTPUT_FORM",
        "OUTPUT_INSIDE_SOURCE",
    }
    assert error.metadata["violation_count"] == "3"
    assert tree(base) == before


# -- requests ------------------------------------------------------------------------------------


def raw_request(base, folder, **method) -> v1.QuantizeRequest:
    spec = v1.QuantizationSpec(
        source_uri=str(base / "served" / "model"), output_uri=str(folder / "out")
    )
    if method:
        spec.method.CopyFrom(v1.MethodConfig(**method))
    return v1.QuantizeRequest(spec=spec)


def calls(client, request: v1.QuantizeRequest):
    stub = client._quantization
    return (
        lambda: list(stub.Quantize(request, timeout=30)),
        lambda: stub.PlanQuantization(v1.PlanQuantizationRequest(spec=request.spec), timeout=30),
    )


@pytest.mark.parametrize(
    ("method", "field"),
    [
        (None, "spec.method"),
        ({}, "spec.method.config"),
        (
            {"bitsandbytes_4bit": v1.Bitsandbytes4BitConfig(bnb_4bit_quant_type=77)},
            "spec.method.bitsandbytes_4bit.bnb_4bit_quant_type",
        ),
        ({"gguf": v1.GgufConfig(file_type=7777)}, "spec.method.gguf.file_type"),
        (
            {"bitsandbytes_4bit": v1.Bitsandbytes4BitConfig(blocksize=63)},
            "spec.method.bitsandbytes_4bit.blocksize",
        ),
        (
            {"bitsandbytes_8bit": v1.Bitsandbytes8BitConfig(llm_int8_threshold=-1.0)},
            "spec.method.bitsandbytes_8bit.llm_int8_threshold",
        ),
    ],
)
def test_requests_against_the_rules_of_the_spec(base, client, folder, method, field) -> None:
    request = raw_request(base, folder)
    if method is not None:
        request.spec.method.CopyFrom(v1.MethodConfig(**method))
    before = tree(base)
    for call in calls(client, request):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        error = quantd._errors.error_of_call(caught.value)
        assert error.code is INVALID
        assert field in [violation.field for violation in error.violations]
        assert error.reason
    assert tree(base) == before


@pytest.mark.parametrize("pattern", ["(", "*", "a" * 2000])
def test_patterns_that_are_none(base, client, folder, pattern) -> None:
    source = base / "served" / "model"
    before = tree(base)
    for method, output in (
        (quantd.bitsandbytes_8bit(llm_int8_skip_modules=[pattern]), "out"),
        (quantd.gguf("Q8_0", tensor_types={pattern: "Q4_0"}), "out.gguf"),
    ):
        with pytest.raises(quantd.InvalidArgumentError) as caught:
            client.quantize(source, folder / output, method)
        assert caught.value.violations
    assert tree(base) == before


def test_a_pattern_that_would_run_for_ever(client, base, folder) -> None:
    # RE2 takes linear time; a backtracking engine would need years for this.
    source = base / "served" / "model"
    pattern = r"(a|a|b|l|y|e|r|s|\.|\d|\w)*(a|a)*$X"
    plan = client.plan(source, quantd.gguf("Q8_0", tensor_types={pattern: "Q4_0"}))
    assert plan.executable
