"""Whole jobs in this process: what they write and say, and what they leave when they fail."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from tests import tiny_models
from tests.checkpoint import builders
from tests.quantizing import planned, quantize, run, specification, stored_tensors, work_order

from quantd_server.checkpoint.gguf_header import read_gguf_header
from quantd_server.checkpoint.safetensors_header import TensorEntry
from quantd_server.engine import chunks
from quantd_server.engine.chunks import split
from quantd_server.engine.events import (
    QuantizationResult,
    StageEvent,
    TensorEvent,
    WarningEvent,
)
from quantd_server.engine.pipeline import JobCancelled
from quantd_server.errors import QuantdError
from quantd_server.methods.base import TensorTask

METHODS = {
    "int8": ("bitsandbytes_8bit", {}),
    "nf4": ("bitsandbytes_4bit", {"bnb_4bit_quant_type": "NF4"}),
    "nf4-double": (
        "bitsandbytes_4bit",
        {"bnb_4bit_quant_type": "NF4", "bnb_4bit_use_double_quant": True},
    ),
    "Q4_K_M": ("gguf", {"file_type": "Q4_K_M"}),
    "Q8_0": ("gguf", {"file_type": "Q8_0"}),
    "F16": ("gguf", {"file_type": "F16"}),
}
each_method = pytest.mark.parametrize(("method", "config"), METHODS.values(), ids=METHODS)
SIZES = {"hidden": 256, "intermediate": 512}
Q_PROJ = "model.layers.1.self_attn.q_proj.weight"
NORM = "model.norm.weight"


def output_path(folder: Path, method: str, name: str = "output") -> Path:
    return folder / (f"{name}.gguf" if method == "gguf" else name)


def files_of(output: Path) -> dict[str, bytes]:
    """The files of an output by name, the record beside a .gguf file included."""
    paths = output.iterdir() if output.is_dir() else output.parent.glob(f"{output.name}*")
    return {path.name: path.read_bytes() for path in paths}


def fails(order, reason, **options) -> QuantdError:
    with pytest.raises(QuantdError) as caught:
        run(order, **options)
    assert caught.value.reason == reason
    return caught.value


@each_method
def test_neither_chunks_nor_threads_change_a_byte(tmp_path, monkeypatch, method, config) -> None:
    source = tiny_models.write(tmp_path / "source", **SIZES)
    results = []
    for number, (threads, elements) in enumerate(
        [(1, 1 << 20), (2, 1 << 20), (1, 300), (3, 10_000), (4, 3000), (4, 3000)]
    ):
        monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", elements)
        folder = tmp_path / str(number)
        folder.mkdir()
        order = work_order(
            planned(specification(source, output_path(folder, method), method, config)),
            threads=threads,
        )
        run(order)
        results.append(files_of(output_path(folder, method)))
    # Of the record, the errors' last digits depend on the chunks, which are the same in every job.
    record = next(name for name in results[0] if name.endswith("quantd.json"))
    assert results[0][record] == results[1][record]
    assert results[-1][record] == results[-2][record]
    expected = {name: data for name, data in results[0].items() if name != record}
    for result in results[1:]:
        assert {name: data for name, data in result.items() if name != record} == expected


@each_method
def test_what_a_job_says(tmp_path, method, config) -> None:
    source = tiny_models.write(tmp_path / "source", **SIZES)
    report = planned(specification(source, output_path(tmp_path, method), method, config))
    *events, result = run(work_order(report))
    assert isinstance(result, QuantizationResult)
    stages = [event.stage for event in events if isinstance(event, StageEvent)]
    assert stages == ["PREPARING", "QUANTIZING", "FINALIZING"]
    tensors = [event for event in events if isinstance(event, TensorEvent)]
    assert isinstance(events[0], StageEvent) and events[-1] == StageEvent(stage="FINALIZING")
    done = [event.progress.tensors_done for event in tensors]
    assert done == list(range(1, len(tensors) + 1))
    last = tensors[-1].progress
    assert (last.tensors_done, last.bytes_done) == (last.tensors_total, last.bytes_total)
    assert last.bytes_total == report.plan.source_bytes
    measured = {event.name: event.relative_error for event in tensors if event.relative_error}
    assert result.worst_relative_error == max(measured.values())
    assert measured[result.worst_tensor] == result.worst_relative_error
    assert 0 < result.relative_error <= result.worst_relative_error < 0.2
    assert result.peak_memory_bytes > 1 << 20
    output = output_path(tmp_path, method)
    folder = output if output.is_dir() else output.parent
    for file in result.files:
        assert (folder / file.name).stat().st_size == file.size_bytes
    assert {file.name for file in result.files} == files_of(output).keys()


EVERY_METHOD = METHODS | {
    "fp4": ("bitsandbytes_4bit", {"bnb_4bit_quant_type": "FP4"}),
    "fp4-double": ("bitsandbytes_4bit", {"bnb_4bit_use_double_quant": True, "blocksize": 128}),
    "nf4-double-bfloat16": (
        "bitsandbytes_4bit",
        METHODS["nf4-double"][1] | {"bnb_4bit_quant_storage": "BFLOAT16"},
    ),
    "BF16": ("gguf", {"file_type": "BF16"}),
    "Q4_0": ("gguf", {"file_type": "Q4_0"}),
    "Q6_K": ("gguf", {"file_type": "Q6_K"}),
}


@pytest.mark.parametrize(
    ("method", "config", "shard_size"),
    [
        pytest.param(method, config, shard_size, id=f"{name}-{shard_size}")
        for name, (method, config) in EVERY_METHOD.items()
        for shard_size in ([None] if method == "gguf" else [1, 400_000, None])
    ],
)
def test_the_size_is_the_planned_one(tmp_path, method, config, shard_size) -> None:
    source = tiny_models.write(tmp_path / "source", shards=2, **SIZES)
    output = output_path(tmp_path, method)
    report = planned(specification(source, output, method, config, max_shard_size=shard_size))
    *events, result = run(work_order(report))
    weights = sorted(output.glob("*.safetensors")) if output.is_dir() else [output]
    assert (len(weights) > 1) == (shard_size is not None and method != "gguf")
    assert report.plan.output_bytes == sum(path.stat().st_size for path in weights)
    assert result.output_bytes == report.plan.output_bytes
    told = {event.name: event.size_bytes for event in events if isinstance(event, TensorEvent)}
    assert sum(told.values()) == sum(each.size_bytes for each in result.types)
    for tensor in report.tensors:
        if tensor.target_name:
            assert 0 <= tensor.target_bytes - told[tensor.target_name] <= 24
    if method == "gguf":
        return
    stored = stored_tensors(output)
    total = sum(len(data) for _, _, data in stored.values())
    assert sum(told.values()) == total
    q_proj = [data for name, (_, _, data) in stored.items() if name.startswith(Q_PROJ[:-6])]
    assert told[Q_PROJ] == sum(map(len, q_proj))
    if len(weights) > 1:
        index = json.loads((output / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == total


@each_method
def test_the_result_names_true_digests(tmp_path, method, config) -> None:
    from hashlib import sha256

    source = tiny_models.write(tmp_path / "source", **SIZES)
    result = quantize(source, output_path(tmp_path, method), method, config)
    for name, data in files_of(output_path(tmp_path, method)).items():
        (file,) = [file for file in result.files if file.name == name]
        assert file.sha256 == sha256(data).hexdigest()


@each_method
def test_nothing_of_the_server_is_in_the_output(tmp_path, method, config) -> None:
    source = tiny_models.write(tmp_path / "source", **SIZES)
    quantize(source, output_path(tmp_path, method), method, config)
    for name, data in files_of(output_path(tmp_path, method)).items():
        assert str(tmp_path).encode() not in data, name


# -- cancelling ----------------------------------------------------------------------------------


@each_method
@pytest.mark.parametrize("at", ["PREPARING", "QUANTIZING", "tensor", "FINALIZING"])
def test_a_cancelled_job_leaves_nothing(tmp_path, monkeypatch, method, config, at) -> None:
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", 4096)
    source = tiny_models.write(tmp_path / "source", **SIZES)
    report = planned(specification(source, output_path(tmp_path, method), method, config))
    before = sorted(tmp_path.rglob("*"))
    cancelled = threading.Event()

    def stop(event) -> None:
        if at == (event.stage if isinstance(event, StageEvent) else "tensor"):
            cancelled.set()

    with pytest.raises(JobCancelled):
        run(work_order(report), cancelled=cancelled, on_event=stop)
    assert sorted(tmp_path.rglob("*")) == before


# -- weights that are not finite -----------------------------------------------------------------


def with_value(name: str, index: int, value: float) -> dict:
    weights = tiny_models.weights(tiny_models.config(**SIZES))[name].copy()
    weights.reshape(-1)[index] = value
    return {name: weights}


@each_method
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("name", "index"), [(Q_PROJ, 0), (Q_PROJ, 65_535), (NORM, 17)])
def test_weights_that_are_not_finite_are_refused(
    tmp_path, monkeypatch, method, config, value, name, index
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", 4096)
    source = tiny_models.write(tmp_path / "source", changes=with_value(name, index, value), **SIZES)
    report = planned(specification(source, output_path(tmp_path, method), method, config))
    before = sorted(tmp_path.rglob("*"))
    error = fails(work_order(report), "NON_FINITE_WEIGHTS")
    assert name in error.message
    assert f"element {index};" in error.message
    assert "allow_non_finite" in error.remedy
    assert sorted(tmp_path.rglob("*")) == before


@each_method
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_allowed_they_become_zero_where_they_are_quantized(tmp_path, method, config, value) -> None:
    broken = tiny_models.write(tmp_path / "broken", changes=with_value(Q_PROJ, 300, value), **SIZES)
    zeroed = tiny_models.write(tmp_path / "zeroed", changes=with_value(Q_PROJ, 300, 0.0), **SIZES)
    outputs = [tmp_path / "a", tmp_path / "b"]
    for folder in outputs:
        folder.mkdir()
    spec = specification(
        broken, output_path(outputs[0], method), method, config, allow_non_finite=True
    )
    events = run(work_order(planned(spec)))
    quantize(zeroed, output_path(outputs[1], method), method, config)
    got, expected = (files_of(output_path(folder, method)) for folder in outputs)
    weights = [name for name in got if name.endswith((".gguf", ".safetensors"))]
    assert [got[name] for name in weights] == [expected[name] for name in weights]
    (warning,) = [event.warning for event in events if isinstance(event, WarningEvent)]
    assert warning.reason == "NON_FINITE_WEIGHTS"
    assert warning.subjects == (Q_PROJ,)
    assert "element 300" in warning.message
    assert "replaced by zero" in warning.message


@pytest.mark.parametrize("method", ["bitsandbytes_8bit", "bitsandbytes_4bit"])
def test_allowed_they_stay_in_tensors_that_are_kept(tmp_path, method) -> None:
    source = tiny_models.write(tmp_path / "source", changes=with_value(NORM, 3, np.inf), **SIZES)
    spec = specification(source, tmp_path / "output", method, allow_non_finite=True)
    events = run(work_order(planned(spec)))
    assert stored_tensors(tmp_path / "output")[NORM] == stored_tensors(source)[NORM]
    (warning,) = [event.warning for event in events if isinstance(event, WarningEvent)]
    assert "kept" in warning.message


def test_a_weight_beyond_float16_is_refused_where_bitsandbytes_would_make_it_infinite(
    tmp_path,
) -> None:
    source = tiny_models.write(
        tmp_path / "source", changes=with_value(Q_PROJ, 5, 70_000.0), **SIZES
    )
    report = planned(specification(source, tmp_path / "output", "bitsandbytes_8bit"))
    assert Q_PROJ in fails(work_order(report), "WEIGHTS_OUT_OF_RANGE").message
    quantize(source, tmp_path / "nf4", "bitsandbytes_4bit")


# -- odd tensors ---------------------------------------------------------------------------------

ODD = {
    "odd.packed_fours": ("F4", (3, 6), bytes(range(9))),
    "odd.packed_sixes": ("F6_E2M3", (4,), b"abc"),
    "odd.scalar": ("I64", (), (1 << 40).to_bytes(8, "little")),
    "odd.flags": ("BOOL", (3,), b"\1\0\1"),
    "odd.doubles": ("F64", (2,), np.float64([0.1, np.nan]).tobytes()),
    "odd.eights": ("F8_E4M3", (5,), b"\x7f\x01\x80\xff\x00"),
    "odd.empty": ("F32", (0, 4), b""),
}


@pytest.mark.parametrize("key", ["int8", "nf4", "nf4-double"])
def test_tensors_of_other_types_are_carried_over(tmp_path, key) -> None:
    method, config = METHODS[key]
    source = tiny_models.write(tmp_path / "source", raw=ODD)
    quantize(source, tmp_path / "output", method, config)
    stored = stored_tensors(tmp_path / "output")
    assert {name: stored[name] for name in ODD} == ODD


@pytest.mark.parametrize("key", ["int8", "nf4", "nf4-double"])
@pytest.mark.parametrize("shape", [(0, 64), (64, 0)])
def test_a_linear_layer_without_weights_is_kept(tmp_path, key, shape) -> None:
    method, config = METHODS[key]
    empty = {Q_PROJ: ("BF16", shape, b"")}
    source = tiny_models.write(tmp_path / "source", raw=empty)
    quantize(source, tmp_path / "output", method, config)
    assert stored_tensors(tmp_path / "output")[Q_PROJ] == empty[Q_PROJ]


@pytest.mark.parametrize("key", METHODS)
def test_a_weight_of_zeros(tmp_path, key) -> None:
    method, config = METHODS[key]
    zeros = {Q_PROJ: np.zeros((256, 256), np.float32)}
    source = tiny_models.write(tmp_path / "source", changes=zeros, **SIZES)
    *events, _ = run(
        work_order(planned(specification(source, output_path(tmp_path, method), method, config)))
    )
    names = (Q_PROJ, "blk.1.attn_q.weight")
    (event,) = [e for e in events if isinstance(e, TensorEvent) and e.name in names]
    assert event.relative_error == 0.0


# -- the world changes ---------------------------------------------------------------------------


@each_method
def test_a_source_that_changed_since_it_was_planned(tmp_path, method, config) -> None:
    source = tiny_models.write(tmp_path / "source", **SIZES)
    report = planned(specification(source, output_path(tmp_path, method), method, config))
    weights = source / "model.safetensors"
    os.utime(weights, ns=(0, 0))
    before = sorted(tmp_path.rglob("*"))
    fails(work_order(report), "SOURCE_CHANGED")
    assert sorted(tmp_path.rglob("*")) == before


def rewrite(source: Path) -> None:
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes())


def replace(source: Path) -> None:
    copy = source / "copy"
    copy.write_bytes((source / "model.safetensors").read_bytes())
    copy.replace(source / "model.safetensors")


def cut_short(source: Path) -> None:
    os.truncate(source / "model.safetensors", 5000)


def remove(source: Path) -> None:
    (source / "model.safetensors").unlink()


@each_method
@pytest.mark.parametrize("change", [rewrite, replace, cut_short, remove])
def test_a_source_that_changes_during_the_job(
    tmp_path, monkeypatch, method, config, change
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", 4096)
    source = tiny_models.write(tmp_path / "source", **SIZES)
    report = planned(specification(source, output_path(tmp_path, method), method, config))
    changes = iter([change])

    def change_once(event) -> None:
        if isinstance(event, TensorEvent):
            next(changes, lambda source: None)(source)

    fails(work_order(report), "SOURCE_CHANGED", on_event=change_once)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@each_method
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_small_file_that_changes_during_the_job(tmp_path, method, config, name) -> None:
    source = tiny_models.write(tmp_path / "source", **SIZES)
    report = planned(specification(source, output_path(tmp_path, method), method, config))

    def change(event) -> None:
        if isinstance(event, TensorEvent):
            (source / name).write_bytes((source / name).read_bytes() + b" ")

    fails(work_order(report), "SOURCE_CHANGED", on_event=change)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@each_method
def test_an_output_that_appears_during_the_job(tmp_path, method, config) -> None:
    source = tiny_models.write(tmp_path / "source", **SIZES)
    output = output_path(tmp_path, method)
    report = planned(specification(source, output, method, config))
    foreign = output if method == "gguf" else output / "foreign"

    def appear(event) -> None:
        if event == StageEvent(stage="FINALIZING"):
            foreign.parent.mkdir(exist_ok=True)
            foreign.write_text("mine")

    fails(work_order(report), "OUTPUT_NOT_EMPTY", on_event=appear)
    assert sorted(path.name for path in tmp_path.iterdir()) == [output.name, "source"]
    assert foreign.read_text() == "mine"


def test_two_jobs_for_one_output(tmp_path) -> None:
    source = tiny_models.write(tmp_path / "source")
    report = planned(specification(source, tmp_path / "output", "bitsandbytes_4bit"))
    second: list[QuantdError] = []

    def run_another(event) -> None:
        if event == StageEvent(stage="QUANTIZING"):
            run(work_order(report, job_id="job2"))

    error = fails(work_order(report), "OUTPUT_NOT_EMPTY", on_event=run_another)
    assert not second and error.kind == "precondition"
    assert (tmp_path / "output" / "config.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output", "source"]


@each_method
@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite", "fsync"])
def test_a_full_disk(tmp_path, monkeypatch, method, config, call) -> None:
    source = tiny_models.write(tmp_path / "source", **SIZES)
    report = planned(specification(source, output_path(tmp_path, method), method, config))

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    error = fails(work_order(report), "DISK_FULL")
    assert error.field == "spec.output_uri"
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_missing_parents_are_made(tmp_path) -> None:
    source = tiny_models.write(tmp_path / "source")
    quantize(source, tmp_path / "new" / "deep" / "output", "bitsandbytes_4bit")
    assert (tmp_path / "new" / "deep" / "output" / "config.json").exists()


@each_method
def test_made_parents_go_with_a_job_that_fails(tmp_path, method, config) -> None:
    source = tiny_models.write(tmp_path / "source", changes=with_value(NORM, 0, np.nan), **SIZES)
    (tmp_path / "empty").mkdir()
    output = output_path(tmp_path / "empty" / "new" / "deep", method)
    report = planned(specification(source, output, method, config))
    fails(work_order(report), "NON_FINITE_WEIGHTS")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "source"]
    assert not list((tmp_path / "empty").iterdir())


def test_config_json_says_nothing_of_its_origin(tmp_path) -> None:
    source = tiny_models.write(tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    config |= {"_name_or_path": "/home/someone/secret", "custom": {"path": "/data/x", "keep": 1}}
    (source / "config.json").write_text(json.dumps(config))
    quantize(source, tmp_path / "output", "bitsandbytes_8bit")
    written = json.loads((tmp_path / "output" / "config.json").read_text())
    assert written["custom"] == {"keep": 1}
    assert "_name_or_path" not in written
    assert written["hidden_size"] == config["hidden_size"]


@pytest.mark.parametrize("transform", ["copy", "permute_heads", "transpose"])
def test_a_tensor_without_elements_has_no_chunks(transform) -> None:
    entry = TensorEntry(name="a", dtype="BF16", shape=(0, 64), offset=8, nbytes=0, file="b")
    task = TensorTask(
        source=entry,
        target_name="a",
        target_type="Q8_0",
        shape=entry.shape,
        action="QUANTIZE",
        reason="",
        transform=transform,
        head_count=4,
    )
    assert not list(split(task, None))


def test_a_gguf_tensor_without_elements_is_written(tmp_path) -> None:
    architecture = builders.pair("general.architecture", "string", builders.text("llama"))
    kept = builders.tensor("output_norm.weight", (8,), 0)
    empty = builders.tensor("output.weight", (1, 0), 30, 32)
    source = tmp_path / "source.gguf"
    source.write_bytes(builders.gguf_bytes([architecture], [kept, empty], bytes(32)))
    quantize(source, tmp_path / "output.gguf", "gguf", {"file_type": "Q4_0"})
    header = read_gguf_header(tmp_path / "output.gguf")
    assert header.tensors["output.weight"].shape == (0, 1)
    assert header.tensors["output.weight"].nbytes == 0
