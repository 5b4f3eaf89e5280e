"""GPTQ, AWQ and AQLM on a model of every family: what is written is what was measured, read by
code of the test's own and run by transformers.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests import calibrated_jobs as jobs
from tests import packed_models
from tests.quantizing import stored_tensors

from quantd_server.methods import block_solver
from quantd_server.methods.linear_solver import QuantizedWeight

pytestmark = pytest.mark.filterwarnings("ignore:.*:FutureWarning", "ignore:.*:UserWarning")

QUANTIZED = re.compile(r"\.layers\.\d+\..*(_proj|\.w[123])\.weight$")
"""The linears that every method quantizes: not routers, gates of one row, or the head."""

RECIPES = {
    "gptq": ("gptq", {"group_size": 32, "sym": True}),
    "gptq-scaled": ("gptq", {"group_size": 32, "sym": False, "awq_scaling": True}),
    "awq": ("awq", {"group_size": 32}),
    "aqlm": ("aqlm", jobs.CONFIGS["aqlm"]),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A checkpoint of a family, made once."""
    folder, made = tmp_path_factory.mktemp("sources"), {}

    def make(family: str, **changes) -> Path:
        key = "-".join([family, *map(str, changes.values())])
        if key not in made:
            made[key] = jobs.source(family, folder / key, **changes)
        return made[key]

    return make


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("family", jobs.FAMILIES)
def test_a_family(tmp_path, checkpoints, family, recipe) -> None:
    source = checkpoints(family)
    method, config = RECIPES[recipe]
    job = jobs.run(source, tmp_path / "output", method, config)
    assert not job.warnings
    check_stored(source, job, method)
    check_errors(job)
    check_evaluation(source, job, tmp_path)


def check_stored(source: Path, job: jobs.Job, method: str) -> None:
    """Names, types and shapes follow from those of the source and the format's definition."""
    before, after = stored_tensors(source), stored_tensors(job.output)
    expected = {}
    for name, (dtype, shape, _) in before.items():
        if not QUANTIZED.search(name) or (method == "aqlm" and ".experts." in name):
            expected[name] = (dtype, shape)
            continue
        (rows, columns), module = shape, name.removesuffix(".weight")
        if method == "aqlm":
            expected[f"{module}.codes"] = ("I8", (rows, columns // 8, 2))
            expected[f"{module}.codebooks"] = ("F16", (2, 16, 1, 8))
            expected[f"{module}.scales"] = ("F16", (rows, 1, 1, 1))
            continue
        groups = columns // 32
        expected[f"{module}.scales"] = ("F16", (groups, rows))
        expected[f"{module}.qzeros"] = ("I32", (groups, rows // 8))
        if method == "gptq":
            expected[f"{module}.qweight"] = ("I32", (columns // 8, rows))
            expected[f"{module}.g_idx"] = ("I32", (columns,))
        else:
            expected[f"{module}.qweight"] = ("I32", (columns, rows // 8))
    assert {name: tensor[:2] for name, tensor in after.items()} == expected
    planned = {tensor.target_name: tensor for tensor in job.report.tensors}
    for name, event in job.linears.items():
        target = next(
            planned[key]
            for key in (f"{name}.{part}" for part in ("qweight", "codes", "weight"))
            if key in planned
        )
        assert target.action == "QUANTIZE"
        assert event.size_bytes == target.target_bytes


def check_errors(job: jobs.Job) -> None:
    """Better than rounding, as a whole and nearly everywhere."""
    errors = [event.output_error for event in job.linears.values()]
    rounding = [event.rounding_output_error for event in job.linears.values()]
    assert 0 < np.mean(errors) < 0.97 * np.mean(rounding)
    assert np.mean(np.array(errors) <= np.array(rounding)) > 0.9


def check_evaluation(source: Path, job: jobs.Job, folder: Path) -> None:
    """What transformers sees in the files is what the job says of itself."""
    plain = packed_models.write_dequantized(job.output, folder / "plain")
    expected = packed_models.figures(
        packed_models.logits(source, jobs.EVALUATED),
        packed_models.logits(plain, jobs.EVALUATED),
        jobs.EVALUATED,
    )
    found = job.result.evaluation
    assert found is not None and found.tokens == expected["tokens"]
    for name in ("source_perplexity", "perplexity"):
        assert getattr(found, name) == pytest.approx(expected[name], rel=1e-5), name
    assert found.kl_divergence == pytest.approx(expected["kl_divergence"], rel=1e-3)
    # A tie may go either way.
    agreed = found.top_token_agreement * found.tokens
    assert agreed == pytest.approx(expected["top_token_agreement"] * found.tokens, abs=1.01)


@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("family", jobs.FAMILIES)
def test_scales_alone_change_nothing(tmp_path, monkeypatch, checkpoints, family, kv_heads) -> None:
    """Everything of AWQ but the rounding: the model computes what it did before."""
    source = checkpoints(family, num_key_value_heads=kv_heads, dtype=torch.float32)
    exact = scale_without_rounding(monkeypatch)
    job = jobs.run(source, tmp_path / "output", "awq", {"group_size": 32}, evaluation=None)
    plain = packed_models.write_dequantized(job.output, tmp_path / "plain", exact)
    before, after = (packed_models.logits(path, jobs.EVALUATED) for path in (source, plain))
    assert np.abs(before - after).max() < 1e-4 * np.abs(before).max()
    # Every weight did change, but that of o_proj where heads share their values.
    original = {name: packed_models.array(value) for name, value in stored_tensors(source).items()}
    unscaled = {name for name in exact if np.allclose(exact[name], original[name], rtol=1e-3)}
    shared = {name for name in exact if name.endswith("o_proj.weight") and kv_heads == 2}
    assert unscaled == shared


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_norms_of_16_bits_take_up_scales_exactly(
    tmp_path, monkeypatch, checkpoints, family
) -> None:
    source = checkpoints(family)
    exact = scale_without_rounding(monkeypatch)
    job = jobs.run(source, tmp_path / "output", "awq", {"group_size": 32}, evaluation=None)
    plain = packed_models.write_dequantized(job.output, tmp_path / "plain", exact)
    before, after = (packed_models.logits(path, jobs.EVALUATED) for path in (source, plain))
    assert np.abs(before - after).max() < 1e-4 * np.abs(before).max()


def scale_without_rounding(monkeypatch) -> dict[str, np.ndarray]:
    """Lets jobs scale at random and not round, and gives what they would have packed, by name."""
    exact: dict[str, np.ndarray] = {}

    def random_scales(inputs, *_arguments, **_options) -> torch.Tensor:
        (first, *_), _ = next(iter(inputs()))
        return torch.exp2(4 * torch.rand(first.shape[1]) - 2)

    def unrounded(weight, *_arguments) -> QuantizedWeight:
        rows, columns = weight.shape
        return QuantizedWeight(
            codes=weight.clone(),
            scales=torch.ones(rows, 1),
            zeros=torch.zeros(rows, 1, dtype=torch.uint8),
            g_idx=torch.zeros(columns, dtype=torch.int32),
        )

    def divided(solved, folding, divisor) -> QuantizedWeight:
        codes = solved.codes.clone()
        rows = slice(folding.first_row, folding.first_row + folding.channels)
        codes[rows] /= divisor[:, None]
        return replace(solved, codes=codes)

    finish = block_solver.BlockSolver.finish

    def recording(self):
        def pack(task, weight):
            exact[task.source.name] = weight.dequantize().numpy().copy()
            return [np.zeros(part.nbytes, np.uint8) for part in task.parts]

        self._pack = pack
        return finish(self)

    monkeypatch.setattr(block_solver, "choose_scales", random_scales)
    monkeypatch.setattr(block_solver, "quantize_linear", unrounded)
    monkeypatch.setattr(block_solver, "_with_divided_rows", divided)
    monkeypatch.setattr(block_solver.BlockSolver, "finish", recording)
    return exact
