"""Jobs that calibrate: what they say, what they refuse, and what they leave."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from tests import calibrated_jobs as jobs
from tests import packed_models, tiny_models
from tests.quantizing import planned, run, specification, stored_tensors, work_order

from quantd_server.calibration.config import (
    CalibrationConfig,
    CalibrationFile,
    CalibrationTexts,
    EvaluationConfig,
)
from quantd_server.engine import calibrated
from quantd_server.engine.events import ProgressEvent, StageEvent, TensorEvent, WarningEvent
from quantd_server.engine.pipeline import JobCancelled
from quantd_server.engine.specification import WorkOrder
from quantd_server.errors import QuantdError

pytestmark = pytest.mark.filterwarnings("ignore:.*:FutureWarning", "ignore:.*:UserWarning")

each_method = pytest.mark.parametrize("method", jobs.CONFIGS)
GROUPS = {"group_size": 32}
Q_PROJ = "model.layers.1.self_attn.q_proj.weight"
NORM = "model.layers.0.input_layernorm.weight"


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    return jobs.source("llama", tmp_path_factory.mktemp("sources") / "llama")


def changed(source: Path, folder: Path, change) -> Path:
    """A copy of a checkpoint in which ``change`` has been at the tensors."""
    folder.mkdir()
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    tensors = load_file(source / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


# What is said


@each_method
def test_stages_and_progress(tmp_path, llama, method) -> None:
    job = jobs.run(llama, tmp_path / "output", method, jobs.CONFIGS[method])
    stages = [event.stage for event in job.events if isinstance(event, StageEvent)]
    assert stages == [
        "PREPARING",
        "QUANTIZING",  # what needs no calibration
        "CALIBRATING",
        "QUANTIZING",
        "EVALUATING",
        "FINALIZING",
    ]
    tensors = [event for event in job.events if isinstance(event, TensorEvent)]
    blocks = [event.progress.blocks_done for event in tensors]
    # The walk may be one step ahead of what is told.
    assert blocks == sorted(blocks) and {0, 1} <= set(blocks) <= {0, 1, 2}
    assert {event.progress.blocks_total for event in tensors if event.output_error} == {2}
    last = tensors[-1].progress
    assert last.tensors_done == last.tensors_total == len(tensors)
    assert last.bytes_done == last.bytes_total
    for event in job.linears.values():
        assert 0 < event.relative_error < 1
        assert 0 < event.output_error < 1
    assert job.result.calibration is not None
    assert job.result.calibration.samples_requested == 16
    assert job.result.calibration.samples_usable == 16
    assert job.result.calibration.tokens == 16 * 48
    assert len(job.result.calibration.sha256) == 64


def test_without_an_evaluation(tmp_path, llama) -> None:
    job = jobs.run(llama, tmp_path / "output", "gptq", GROUPS, evaluation=None)
    assert StageEvent(stage="EVALUATING") not in job.events
    assert job.result.evaluation is None
    assert "evaluation" not in json.loads(job.files()["quantd.json"])


@each_method
def test_the_record_beside_the_output(tmp_path, llama, method) -> None:
    job = jobs.run(llama, tmp_path / "output", method, jobs.CONFIGS[method])
    record = json.loads(job.files()["quantd.json"])
    assert record["calibration"] == msgspec.to_builtins(job.result.calibration)
    assert record["evaluation"] == msgspec.to_builtins(job.result.evaluation)
    for name in ("torch", "transformers"):
        assert record["packages"][name] == version(name)
    before, after = stored_tensors(llama), packed_models.dequantized(job.output)
    solved = {}
    for name, entry in record["tensors"].items():
        if "output_error" not in entry:
            assert entry["relative_error"] is None
            continue
        event = job.linears[jobs.module_of(name)]
        assert entry["output_error"] == event.output_error
        assert entry["rounding_output_error"] == event.rounding_output_error
        solved[entry["source"]] = entry["relative_error"]
    assert solved.keys() == after.keys()
    if method != "awq":  # AWQ's files hold scaled weights
        for name, error in solved.items():
            weight = packed_models.array(before[name]).astype(np.float64)
            difference = after[name] - weight
            expected = math.sqrt(np.square(difference).sum() / np.square(weight).sum())
            assert error == pytest.approx(expected, rel=1e-4)


@each_method
def test_neither_texts_nor_paths_get_into_the_output(tmp_path, llama, method) -> None:
    source = changed(llama, tmp_path / "secret-source", lambda _: None)
    tiny_models.write_tokenizer(source)
    (tmp_path / "secret-file.txt").write_text("Nobody may read this. " * 40)
    text = "Confidential, whatever it says. " * 60
    for number, data in enumerate(
        [
            {"texts": CalibrationTexts(texts=(text,))},
            {"file": CalibrationFile(uri=str(tmp_path / "secret-file.txt"))},
        ]
    ):
        size = {"num_samples": 4, "sequence_length": 32}
        # The tokenizer's ids reach beyond this model's vocabulary.
        job = run_with_larger_vocabulary(
            source,
            tmp_path / f"output{number}",
            method,
            calibration=CalibrationConfig(**data, **size),
            evaluation=EvaluationConfig(**data, **size),
        )
        for name, content in job.files().items():
            for word in (b"Confidential", b"Nobody may", b"secret-", str(tmp_path).encode()):
                assert word not in content, name
    config = json.loads(job.files()["config.json"])["quantization_config"]
    assert not {"dataset", "tokenizer", "calibration"} & set(config)


def run_with_larger_vocabulary(source: Path, output: Path, method: str, **options) -> jobs.Job:
    folder = source.parent / f"{output.name}-secret-source"

    def enlarge(tensors) -> None:
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            tensors[name] = tensors[name].repeat(3, 1)[: tiny_models.VOCABULARY].contiguous()

    changed(source, folder, enlarge)
    tiny_models.write_tokenizer(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": tiny_models.VOCABULARY}))
    return jobs.run(folder, output, method, jobs.CONFIGS[method], **options)


@each_method
@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_job_gives_the_same_bytes(tmp_path, llama, method, threads) -> None:
    one, two = (
        jobs.run(llama, tmp_path / name, method, jobs.CONFIGS[method], threads=threads).files()
        for name in ("one", "two")
    )
    assert one == two


@each_method
@pytest.mark.parametrize("solved", [0, 9])
def test_a_worker_that_goes_on_ends_with_the_same_bytes(tmp_path, llama, method, solved) -> None:
    """Ended when so many tensors of the blocks were solved, by the method that was asked for."""

    def order(name: str) -> WorkOrder:
        output = tmp_path / name / "model"
        spec = specification(
            llama, output, method, jobs.CONFIGS[method], calibration=jobs.CALIBRATION
        )
        return msgspec.structs.replace(work_order(planned(spec)), recoverable=True)

    cancelled, seen = threading.Event(), []

    def stop(event) -> None:
        seen.append(event)
        calibrating = StageEvent(stage="CALIBRATING") in seen
        count = sum(isinstance(e, TensorEvent) and e.output_error is not None for e in seen)
        if calibrating and count >= solved:
            cancelled.set()

    with pytest.raises(JobCancelled):
        run(order("out"), cancelled=cancelled, on_event=stop)
    assert not (tmp_path / "out" / "model").exists()
    for name in ("out", "alone"):
        run(order(name))
    one, two = (
        {file.name: file.read_bytes() for file in (tmp_path / name / "model").iterdir()}
        for name in ("out", "alone")
    )
    assert one == two


# What is wrong with weights and data


@each_method
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", [Q_PROJ, NORM])
def test_a_weight_that_is_not_finite_is_refused_at_once(
    tmp_path, llama, method, value, name
) -> None:
    def spoil(tensors) -> None:
        tensors[name].view(-1)[5] = value

    source = changed(llama, tmp_path / "source", spoil)
    events: list = []
    with pytest.raises(QuantdError) as caught:
        run_order(source, tmp_path / "output", method, events)
    assert caught.value.reason == "NON_FINITE_WEIGHTS"
    assert name in caught.value.message and "element 5" in caught.value.message
    assert StageEvent(stage="CALIBRATING") not in events
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def run_order(source: Path, output: Path, method: str, events: list, **options) -> None:
    spec = specification(
        source, output, method, jobs.CONFIGS[method], calibration=jobs.CALIBRATION, **options
    )
    run(work_order(planned(spec)), on_event=events.append)


@each_method
def test_a_weight_that_is_not_finite_becomes_zero_where_that_is_asked_for(
    tmp_path, llama, method
) -> None:
    def spoil(tensors) -> None:
        tensors[Q_PROJ][3, 7] = math.nan

    def zero(tensors) -> None:
        tensors[Q_PROJ][3, 7] = 0.0

    spoiled = changed(llama, tmp_path / "spoiled", spoil)
    zeroed = changed(llama, tmp_path / "zeroed", zero)
    job = jobs.run(
        spoiled,
        tmp_path / "one",
        method,
        jobs.CONFIGS[method],
        allow_non_finite=True,
        evaluation=None,
    )
    expected = jobs.run(zeroed, tmp_path / "two", method, jobs.CONFIGS[method], evaluation=None)
    assert stored_tensors(job.output) == stored_tensors(expected.output)
    (warning,) = (event.warning for event in job.events if isinstance(event, WarningEvent))
    assert warning.reason == "NON_FINITE_WEIGHTS"
    assert warning.subjects == (Q_PROJ,)
    assert f"element {3 * 64 + 7}" in warning.message and "replaced by zero" in warning.message


def test_an_evaluation_of_what_is_not_finite_is_left_out(tmp_path, llama) -> None:
    def spoil(tensors) -> None:
        tensors["model.norm.weight"][0] = math.inf

    source = changed(llama, tmp_path / "source", spoil)
    job = jobs.run(source, tmp_path / "output", "gptq", GROUPS, allow_non_finite=True)
    reasons = [event.warning.reason for event in job.events if isinstance(event, WarningEvent)]
    assert reasons == ["NON_FINITE_WEIGHTS", "EVALUATION_NOT_FINITE"]
    assert job.result.evaluation is None
    json.loads(job.files()["quantd.json"], parse_constant=pytest.fail)


@pytest.mark.parametrize("method", ["gptq", "awq"])  # AQLM leaves experts as they are
def test_experts_that_see_few_tokens_are_rounded(tmp_path, method) -> None:
    source = jobs.source("qwen3_moe", tmp_path / "source", num_experts=16, num_experts_per_tok=1)
    few = CalibrationConfig(tokens=jobs.token_data(2, 24))
    job = jobs.run(source, tmp_path / "output", method, GROUPS, calibration=few)
    messages = {
        event.warning.subjects[0]: event.warning.message
        for event in job.events
        if isinstance(event, WarningEvent)
    }
    assert set(job.warnings.values()) == {"TOO_FEW_TOKENS"}
    assert all(".experts." in name for name in messages)
    assert any(message.startswith("0 calibration tokens, ") for message in messages.values())
    assert job.result.evaluation is not None  # and is finite
    if method == "awq":
        return
    before, after = stored_tensors(source), packed_models.dequantized(job.output)
    for name in messages:
        weight = packed_models.array(before[f"{name}.weight"])
        np.testing.assert_allclose(after[f"{name}.weight"], rounded(weight), rtol=1e-6)


def rounded(weight: np.ndarray) -> np.ndarray:
    """Symmetric rounding to 4 bits in groups of 32, by the definition."""
    groups = weight.reshape(len(weight), -1, 32)
    largest = np.abs(groups).max(-1, keepdims=True)
    scale = (2 * largest / 15).astype(np.float16).astype(np.float32)
    codes = np.clip(np.round(groups / scale) + 8, 0, 15)
    return ((codes - 8) * scale).reshape(weight.shape)


def test_a_checkpoint_of_the_base_model_alone(tmp_path) -> None:
    """As the published gpt2 is: names without the model's prefix."""
    source = jobs.source("gpt2", tmp_path / "source", n_embd=64, tie_word_embeddings=True)
    file = source / "model.safetensors"
    tensors = {name.removeprefix("transformer."): value for name, value in load_file(file).items()}
    tensors.pop("lm_head.weight", None)
    save_file(tensors, file, metadata={"format": "pt"})
    job = jobs.run(source, tmp_path / "output", "gptq", GROUPS)
    assert {name.rpartition(".")[2] for name in job.linears} == {"c_attn", "c_proj", "c_fc"}
    assert job.result.evaluation is not None


@pytest.mark.parametrize(
    "changes", [{"num_kv_shared_layers": 2}, {"hidden_size_per_layer_input": 32}]
)
def test_blocks_that_pass_on_more_than_states_are_refused(tmp_path, changes) -> None:
    source = jobs.source(
        "gemma4_text", tmp_path / "source", num_hidden_layers=4, global_head_dim=16, **changes
    )
    with pytest.raises(QuantdError) as raised:
        jobs.run(source, tmp_path / "output", "gptq", GROUPS)
    assert raised.value.reason == "ARCHITECTURE_NOT_SUPPORTED"


def test_an_evaluation_without_a_token_to_predict(tmp_path, llama) -> None:
    alone = EvaluationConfig(tokens=jobs.given([[5], [6]]))
    job = jobs.run(llama, tmp_path / "output", "gptq", GROUPS, evaluation=alone)
    assert job.result.evaluation is None
    reasons = [event.warning.reason for event in job.events if isinstance(event, WarningEvent)]
    assert reasons == ["EVALUATION_TOO_SHORT"]


@each_method
def test_on_a_processor_without_products_of_bfloat16(tmp_path, monkeypatch, llama, method) -> None:
    usual = jobs.run(llama, tmp_path / "usual", method, jobs.CONFIGS[method])
    monkeypatch.setattr(calibrated, "BF16_FEATURES", frozenset())
    other = jobs.run(llama, tmp_path / "other", method, jobs.CONFIGS[method])
    for module, event in usual.linears.items():
        assert other.linears[module].output_error == pytest.approx(event.output_error, rel=0.1)


@pytest.mark.parametrize(
    ("features", "faster"),
    [
        (["avx2", "avx512f"], False),
        (["avx512f", "avx512_bf16"], True),
        (["amx_tile", "amx_bf16"], True),
        (["asimd", "bf16"], True),
    ],
)
def test_processors_that_multiply_bfloat16(features, faster) -> None:
    assert calibrated.multiplies_bf16_faster("cpu", features) is faster


@each_method
def test_a_second_moment_beyond_all_range(tmp_path, llama, method) -> None:
    """Inputs so large that their squares overflow: the linear is rounded, and it is said."""

    def enlarge(tensors) -> None:
        tensors["model.layers.0.mlp.up_proj.weight"] *= 1e19

    source = changed(llama, tmp_path / "source", enlarge)
    leave_out = {
        "gptq": {"dynamic": [{"pattern": r"layers\.0\.mlp\.up_proj", "exclude": True}]},
        "awq": {"modules_to_not_convert": ["model.layers.0.mlp.up_proj"], "gptq_solver": True},
        "aqlm": {
            "linear_weights_not_to_quantize": [
                "model.layers.0.mlp.up_proj.weight",
                "lm_head.weight",
            ]
        },
    }[method]
    job = jobs.run(
        source, tmp_path / "output", method, jobs.CONFIGS[method] | leave_out, evaluation=None
    )
    assert job.warnings == {"model.layers.0.mlp.down_proj": "SECOND_MOMENT_INDEFINITE"}
    record = json.loads(job.files()["quantd.json"], parse_constant=pytest.fail)
    (entry,) = (
        entry
        for entry in record["tensors"].values()
        if entry["source"] == "model.layers.0.mlp.down_proj.weight"
    )
    assert entry["relative_error"] > 0 and "output_error" not in entry
    for parts in packed_models.packed_modules(stored_tensors(job.output)).values():
        assert np.isfinite(parts["scales"]).all()


def test_aqlm_looks_at_no_inputs_when_there_are_few(tmp_path, llama) -> None:
    few = [CalibrationConfig(tokens=jobs.token_data(1, 24, seed)) for seed in (1, 2)]
    one, two = (
        jobs.run(llama, tmp_path / str(number), "aqlm", jobs.CONFIGS["aqlm"], calibration=data)
        for number, data in enumerate(few)
    )
    assert len(one.warnings) == 14
    assert set(one.warnings.values()) == {"TOO_FEW_TOKENS"}
    assert stored_tensors(one.output) == stored_tensors(two.output)


def test_weights_beyond_the_scales_of_aqlm_are_cut_off(tmp_path, llama) -> None:
    def enlarge(tensors) -> None:
        tensors[Q_PROJ][3, 7] = 1e6
        tensors[Q_PROJ][5] *= 1e18

    source = changed(llama, tmp_path / "source", enlarge)
    job = jobs.run(source, tmp_path / "output", "aqlm", jobs.CONFIGS["aqlm"], evaluation=None)
    assert job.warnings == {Q_PROJ.removesuffix(".weight"): "WEIGHTS_SATURATED"}
    (warning,) = (event.warning for event in job.events if isinstance(event, WarningEvent))
    assert warning.message.startswith("2 rows of a layer")
    before, after = stored_tensors(source), packed_models.dequantized(job.output)
    weight = packed_models.array(before[Q_PROJ])
    found = after[Q_PROJ]
    assert np.isfinite(found).all()
    limit = 65504 / 8  # of 64 weights in a row
    assert found[3, 7] == pytest.approx(limit, rel=0.1)
    others = [row for row in range(len(weight)) if row not in (3, 5)]
    lost = np.square(found[others] - weight[others]).sum()
    assert lost < np.square(weight[others]).sum()


# The process

LONG_WORK = """
import time, torch
import quantd_server.engine.worker as worker
import {module} as module

def work(*arguments, **options):
    while True:
        torch.linalg.eigvalsh(torch.rand(1500, 1500))  # cannot be interrupted

module.{function} = work
worker.leave(worker.main())
"""

LONG = {
    "gptq": ("quantd_server.methods.linear_solver", "solve"),
    "aqlm": ("quantd_server.methods.aqlm.solving", "solve"),
    "aqlm, tuning": ("quantd_server.methods.aqlm.solving", "tune"),
}
"""By the method, and what of it: what takes long."""


@pytest.mark.parametrize("what", LONG)
def test_a_job_inside_torch_stops_at_once(tmp_path, llama, what) -> None:
    method, _, tuning = what.partition(", ")
    config = jobs.CONFIGS[method] | ({"finetune_max_epochs": 1} if tuning else {})
    spec = specification(llama, tmp_path / "output", method, config, calibration=jobs.CALIBRATION)
    order = work_order(planned(spec), threads=1)
    module, function = LONG[what]
    with subprocess.Popen(
        [sys.executable, "-c", LONG_WORK.format(module=module, function=function)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:
        try:
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            process.stdin.flush()
            times = []
            for line in process.stdout:
                event = json.loads(line)
                times.append(time.monotonic())
                if len(times) > 60 or (event["type"] == "progress" and blocked(event, times)):
                    break
            assert max(np.diff(times)) < 2
            asked = time.monotonic()
            process.send_signal(signal.SIGTERM)
            rest = [json.loads(line) for line in process.stdout]
            assert process.wait(30) == 2
            assert time.monotonic() - asked < 2
            assert process.stderr.read() == b""
        finally:
            process.kill()
    assert not [event for event in rest if event["type"] != "progress"]
    assert not list(tmp_path.iterdir())


def blocked(event, times) -> bool:
    """It has been solving the same linear for some seconds."""
    return event["progress"]["stage"] == "QUANTIZING" and times[-1] - times[0] > 6


@each_method
def test_cancelled_anywhere_nothing_is_left(tmp_path, llama, method) -> None:
    """In this process: at the first, the middle and the last event."""
    spec = specification(
        llama,
        tmp_path / "output",
        method,
        jobs.CONFIGS[method],
        calibration=jobs.CALIBRATION,
        evaluation=jobs.EVALUATION,
    )
    order = work_order(planned(spec), threads=1)
    count = sum(not isinstance(event, ProgressEvent) for event in run(order))
    names = {path.name for path in tmp_path.iterdir()}
    for path in (tmp_path / "output").iterdir():
        path.unlink()
    (tmp_path / "output").rmdir()
    assert names == {"output"}
    for place in (1, 8, count // 2, count - 3):
        cancelled, seen = threading.Event(), []

        def cancel(event, place=place, cancelled=cancelled, seen=seen) -> None:
            seen.append(event)
            if sum(not isinstance(one, ProgressEvent) for one in seen) == place:
                cancelled.set()

        started = time.monotonic()
        with pytest.raises(JobCancelled):
            run(order, cancelled=cancelled, on_event=cancel)
        assert not list(tmp_path.iterdir()), place
        assert time.monotonic() - started < 30
