"""Jobs of AQLM that tune blocks, beside what transformers computes from their files."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from tests import calibrated_jobs as jobs
from tests import packed_models
from tests.quantizing import planned, run, specification, stored_tensors, work_order
from transformers import AutoModelForCausalLM

from quantd_server.calibration import tuning
from quantd_server.calibration.config import CalibrationConfig
from quantd_server.engine import blockwise
from quantd_server.engine.events import ProgressEvent, TensorEvent
from quantd_server.engine.pipeline import JobCancelled
from quantd_server.engine.specification import WorkOrder

pytestmark = pytest.mark.filterwarnings("ignore:.*:FutureWarning", "ignore:.*:UserWarning")

TUNED = jobs.CONFIGS["aqlm"] | {
    "finetune_max_epochs": 3,
    "finetune_lr": 1e-3,
    "finetune_batch_size": 5,
}
TOKENS = torch.tensor([sequence.ids for sequence in jobs.CALIBRATION.tokens.sequences])


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    return jobs.source("llama", tmp_path_factory.mktemp("sources") / "llama")


def block_errors(source: Path, plain: Path) -> list[float]:
    """sqrt(sum |y' - y|^2 / sum |y - x|^2) of each block: x is what it gets in the result."""
    original, result = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        for folder in (source, plain)
    )
    found = []
    with torch.inference_mode():
        for index, block in enumerate(result.model.layers):
            seen: dict[str, torch.Tensor] = {}

            def look(_, args, kwargs, returned, index=index, seen=seen) -> None:
                seen["x"] = args[0].clone()
                seen["y'"] = _states(returned).clone()
                seen["y"] = _states(original.model.layers[index](*args, **kwargs)).clone()

            handle = block.register_forward_hook(look, with_kwargs=True)
            result(TOKENS, use_cache=False)
            handle.remove()
            lost = (seen["y'"] - seen["y"]).square().sum()
            found.append(float((lost / (seen["y"] - seen["x"]).square().sum()).sqrt()))
    return found


def _states(returned) -> torch.Tensor:
    return returned[0] if isinstance(returned, tuple) else returned


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2", "qwen3_moe", "phi3"])
def test_what_is_said_of_a_block_is_true_of_the_files(tmp_path, family) -> None:
    source = jobs.source(family, tmp_path / "source")
    job = jobs.run(source, tmp_path / "output", "aqlm", TUNED, evaluation=None)
    plain = packed_models.write_dequantized(job.output, tmp_path / "plain")
    expected = block_errors(source, plain)
    events = [event for event in job.events if isinstance(event, TensorEvent)]
    tuned = {event.name: event for event in events if event.block_output_error is not None}
    record = json.loads(job.files()["quantd.json"])
    assert record["blocks"].keys() == {"0", "1"}
    for index, error in enumerate(expected):
        of_block = [event for name, event in tuned.items() if f".layers.{index}." in name]
        (found,) = {
            (event.block_output_error, event.untuned_block_output_error) for event in of_block
        }
        assert found[0] == pytest.approx(error, rel=0.02)  # products are of bfloat16
        assert found[0] < found[1]
        assert record["blocks"][str(index)] == {
            "output_error": found[0],
            "untuned_output_error": found[1],
        }
    before, after = stored_tensors(source), stored_tensors(job.output)
    changed = [name for name in after if name in before and before[name][2] != after[name][2]]
    assert changed and all("norm" in name or name.endswith(".bias") for name in changed)
    assert set(changed) <= tuned.keys()
    assert all(before[name][:2] == after[name][:2] for name in changed)
    weights = packed_models.dequantized(job.output)
    for module, event in job.linears.items():
        weight = packed_models.array(before[f"{module}.weight"]).astype(np.float64)
        lost = np.square(weights[f"{module}.weight"] - weight).sum() / np.square(weight).sum()
        assert event.relative_error == pytest.approx(lost**0.5, rel=1e-4)
        assert 0 < event.output_error < 1


def order(source: Path, output: Path, config=TUNED) -> WorkOrder:
    spec = specification(source, output, "aqlm", config, calibration=jobs.CALIBRATION)
    return msgspec.structs.replace(work_order(planned(spec)), recoverable=True)


@pytest.mark.parametrize("solved", [0, 9])
def test_a_worker_that_goes_on_ends_with_the_same_bytes(tmp_path, llama, solved) -> None:
    cancelled, seen = threading.Event(), []

    def stop(event) -> None:
        seen.append(event)
        count = sum(isinstance(e, TensorEvent) and e.output_error is not None for e in seen)
        if isinstance(event, ProgressEvent | TensorEvent) and count >= max(1, solved):
            cancelled.set()

    with pytest.raises(JobCancelled):
        run(order(llama, tmp_path / "out" / "model"), cancelled=cancelled, on_event=stop)
    for name in ("out", "alone"):
        run(order(llama, tmp_path / name / "model"))
    one, two = (
        {file.name: file.read_bytes() for file in (tmp_path / name / "model").iterdir()}
        for name in ("out", "alone")
    )
    assert one == two
    assert "blocks" in json.loads(one["quantd.json"])


def test_blocks_are_gone_on_from_their_checkpoints(tmp_path, llama, monkeypatch) -> None:
    """With states of what tuning ended with: the second block gets the same either way."""
    done = []
    original = blockwise.BlockwiseRun._do_block

    def do_block(self, *arguments):
        outcomes = original(self, *arguments)
        if len(done) == 1:
            raise JobCancelled
        done.append(outcomes)
        return outcomes

    with monkeypatch.context() as patch:
        patch.setattr(blockwise.BlockwiseRun, "_do_block", do_block)
        with pytest.raises(JobCancelled):
            run(order(llama, tmp_path / "out" / "model"))
    assert len(done) == 1
    events = run(order(llama, tmp_path / "out" / "model"))
    run(order(llama, tmp_path / "alone" / "model"))
    one, two = (
        {file.name: file.read_bytes() for file in (tmp_path / name / "model").iterdir()}
        for name in ("out", "alone")
    )
    assert one == two
    tuned = [e for e in events if isinstance(e, TensorEvent) and e.block_output_error is not None]
    assert len({event.block_output_error for event in tuned}) == 2


def test_memory_for_activations_does_not_matter(tmp_path, llama, monkeypatch) -> None:
    from quantd_server.engine import calibrated

    files = []
    for budget in (0, 1 << 30):
        monkeypatch.setattr(calibrated, "ACTIVATION_BYTES", budget)
        job = jobs.run(llama, tmp_path / str(budget), "aqlm", TUNED, evaluation=None)
        files.append(job.files())
    assert files[0] == files[1]


def test_a_block_that_tuning_does_no_good_stays_as_it_was(tmp_path, llama) -> None:
    spoilt = TUNED | {"finetune_lr": 1.0, "finetune_early_stop": 1}
    one = jobs.run(llama, tmp_path / "one", "aqlm", spoilt, evaluation=None)
    two = jobs.run(
        llama, tmp_path / "two", "aqlm", TUNED | {"finetune_max_epochs": 0}, evaluation=None
    )
    assert stored_tensors(one.output) == stored_tensors(two.output)
    errors = {
        (event.block_output_error, event.untuned_block_output_error)
        for event in one.linears.values()
    }
    # The walk's products round weights to bfloat16 where the processor has them.
    assert all(found == pytest.approx(untuned, rel=0.01) for found, untuned in errors)


def test_norms_of_blocks_without_codes_stay(tmp_path, llama) -> None:
    linears = [
        f"model.layers.0.{name}_proj.weight"
        for name in (
            *(f"self_attn.{letter}" for letter in "qkvo"),
            *(f"mlp.{name}" for name in ("gate", "up", "down")),
        )
    ]
    config = TUNED | {"linear_weights_not_to_quantize": [*linears, "lm_head.weight"]}
    job = jobs.run(llama, tmp_path / "output", "aqlm", config, evaluation=None)
    before, after = stored_tensors(llama), stored_tensors(job.output)
    norms = [name for name in before if "layers" in name and "norm" in name]
    changed = {name for name in norms if before[name] != after[name]}
    assert changed and all(".layers.1." in name for name in changed)


def test_tuning_stops_between_two_pieces(tmp_path, llama, monkeypatch) -> None:
    cancelled, calls = threading.Event(), []
    original = tuning.functional.mse_loss

    def loss(*arguments, **options):
        calls.append(None)
        if len(calls) == 3:
            cancelled.set()
        return original(*arguments, **options)

    monkeypatch.setattr(tuning.functional, "mse_loss", loss)
    spec = specification(llama, tmp_path / "output", "aqlm", TUNED, calibration=jobs.CALIBRATION)
    with pytest.raises(JobCancelled):
        run(work_order(planned(spec)), cancelled=cancelled)
    assert len(calls) == 3
    assert not list(tmp_path.iterdir())


def test_few_sequences_of_unequal_length(tmp_path, llama) -> None:
    sequences = [
        list(ids)[: 20 + 9 * number]
        for number, ids in enumerate(s.ids for s in jobs.token_data(3).sequences)
    ]
    data = CalibrationConfig(tokens=jobs.given(sequences))
    job = jobs.run(llama, tmp_path / "output", "aqlm", TUNED, evaluation=None, calibration=data)
    assert all(
        event.block_output_error <= event.untuned_block_output_error
        for event in job.linears.values()
    )
