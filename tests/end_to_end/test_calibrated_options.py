"""The options of GPTQ, AWQ and AQLM in whole jobs: what is written is what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests import calibrated_jobs as jobs
from tests import packed_models
from tests.quantizing import stored_tensors

pytestmark = pytest.mark.filterwarnings("ignore:.*:FutureWarning", "ignore:.*:UserWarning")

V_PROJ = "model.layers.1.self_attn.v_proj.weight"

GPTQ = {
    "sym": {"sym": True},
    "asym": {"sym": False},
    "rows": {"group_size": -1},
    "desc_act": {"desc_act": True},
    "desc_act-asym": {"desc_act": True, "sym": False},
    "desc_act-static": {"desc_act": True, "static_groups": True},
    "static": {"static_groups": True},
    "natural": {"act_group_aware": False},
    "2-bit": {"bits": 2, "sym": False},
    "3-bit": {"bits": 3},
    "3-bit-asym": {"bits": 3, "sym": False},
    "8-bit": {"bits": 8},
    "v2": {"format": "GPTQ_V2"},
    "mse": {"mse": 2.4},
    "at-once": {"true_sequential": False},
    "scaled": {"awq_scaling": True},
    "scaled-3-bit": {"awq_scaling": True, "bits": 3, "sym": False, "desc_act": True},
    "small-blocks": {"block_size": 32},
}
AWQ = {
    "plain": {},
    "rows": {"group_size": -1},
    "solver": {"gptq_solver": True},
    "no-clip": {"apply_clip": False},
    "no-duo": {"duo_scaling": False},
    "solver-no-clip": {"gptq_solver": True, "apply_clip": False},
    "coarse": {"n_grid": 4, "max_shrink": 0.2},
}
# What looks at all pairs has no beam, so all have three codebooks.
AQLM = {
    "plain": {},
    "four": {"num_codebooks": 4},
    "5-bit": {"nbits_per_codebook": 5},
    "narrow": {"in_group_size": 4},
    "tall": {"out_group_size": 2},
    "impatient": {"relative_mse_tolerance": 0.5},
    "one-epoch": {"max_epochs": 1},
    "two-steps": {"steps_per_epoch": 2},
    "beam": {"beam_size": 4},
    "few-iterations": {"init_max_iter": 1},
    "few-points": {"init_max_points_per_centroid": 4},
    "without": {"linear_weights_not_to_quantize": ["lm_head.weight", V_PROJ]},
    "not-tuned": {"finetune_max_epochs": 0},
    "tuned-longer": {"finetune_max_epochs": 6},
    "tuned-slowly": {"finetune_lr": 1e-4},
    "tuned-in-larger-batches": {"finetune_batch_size": 8},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return jobs.source("llama", tmp_path_factory.mktemp("source") / "llama", num_key_value_heads=4)


def check(source: Path, job: jobs.Job, folder: Path) -> None:
    """The evaluation is that of the weights in the files; the errors are those of rounding less."""
    plain = packed_models.write_dequantized(job.output, folder / "plain")
    expected = packed_models.figures(
        packed_models.logits(source, jobs.EVALUATED),
        packed_models.logits(plain, jobs.EVALUATED),
        jobs.EVALUATED,
    )
    assert job.result.evaluation is not None
    assert job.result.evaluation.perplexity == pytest.approx(expected["perplexity"], rel=1e-5)
    assert job.result.evaluation.kl_divergence == pytest.approx(
        expected["kl_divergence"], rel=1e-3, abs=1e-7
    )
    errors = np.array([event.output_error for event in job.linears.values()])
    rounding = np.array([event.rounding_output_error for event in job.linears.values()])
    assert 0 < errors.mean() < rounding.mean()


@pytest.mark.parametrize("config", GPTQ.values(), ids=GPTQ)
def test_gptq(tmp_path, source, config) -> None:
    job = jobs.run(source, tmp_path / "output", "gptq", {"group_size": 32} | config)
    check(source, job, tmp_path)
    modules = packed_models.packed_modules(stored_tensors(job.output))
    assert len(modules) == 14
    written = json.loads((job.output / "config.json").read_text())["quantization_config"]
    assert written == json.loads((job.output / "quantize_config.json").read_text())
    bits = config.get("bits", 4)
    size = 32 if config.get("group_size") != -1 else None
    for name, parts in modules.items():
        columns = len(parts["g_idx"])
        natural = np.arange(columns) // (size or columns)
        if config.get("desc_act") and not config.get("static_groups"):
            # Every group has its share of the columns, in another order.
            assert not np.array_equal(parts["g_idx"], natural) or name.endswith("o_proj")
            np.testing.assert_array_equal(np.sort(parts["g_idx"]), natural)
        else:
            np.testing.assert_array_equal(parts["g_idx"], natural)
        if config.get("sym", True) and "bits" not in config:
            word = 0x88888888 if config.get("format") == "GPTQ_V2" else 0x77777777
            assert set(parts["qzeros"].view(np.uint32).flat) == {word}
        assert parts["qweight"].shape[0] == columns * bits // 32
    asymmetric = config.get("sym") is False or config.get("format") == "GPTQ_V2"
    assert written["checkpoint_format"] == ("gptq_v2" if asymmetric else "gptq")


@pytest.mark.parametrize("config", AWQ.values(), ids=AWQ)
def test_awq(tmp_path, source, config) -> None:
    job = jobs.run(source, tmp_path / "output", "awq", {"group_size": 32} | config)
    check(source, job, tmp_path)
    assert len(packed_models.packed_modules(stored_tensors(job.output))) == 14


@pytest.mark.parametrize("config", AQLM.values(), ids=AQLM)
def test_aqlm(tmp_path, source, config) -> None:
    codes = {"num_codebooks": 3, "nbits_per_codebook": 4}
    job = jobs.run(source, tmp_path / "output", "aqlm", codes | config)
    check(source, job, tmp_path)
    left_out = config.get("linear_weights_not_to_quantize", [])
    modules = packed_models.packed_modules(stored_tensors(job.output))
    assert len(modules) == (13 if left_out else 14)
    assert all(
        stored_tensors(job.output)[name] == stored_tensors(source)[name] for name in left_out
    )


def test_options_of_aqlm_change_the_result(tmp_path, source) -> None:
    codes = {"num_codebooks": 3, "nbits_per_codebook": 4}
    found: dict[bytes, str] = {}
    for name, config in AQLM.items():
        job = jobs.run(source, tmp_path / name, "aqlm", codes | config, evaluation=None)
        weights = packed_models.dequantized(job.output)
        key = b"".join(weights[module].tobytes() for module in sorted(weights))
        assert key not in found, f"{name} is {found[key]}"
        found[key] = name
    seeded = msgspec.structs.replace(jobs.CALIBRATION, seed=7)
    job = jobs.run(source, tmp_path / "seed", "aqlm", codes, calibration=seeded, evaluation=None)
    weights = packed_models.dequantized(job.output)
    assert b"".join(weights[module].tobytes() for module in sorted(weights)) not in found


def test_options_change_the_result(tmp_path, source) -> None:
    """No option is accepted and then forgotten."""
    found: dict[bytes, str] = {}
    for method, table in (("gptq", GPTQ), ("awq", AWQ)):
        for name, config in table.items():
            if config in ({"sym": True}, {"format": "GPTQ_V2"}, {"block_size": 32}):
                continue  # block_size is speed only
            job = jobs.run(
                source,
                tmp_path / f"{method}-{name}",
                method,
                {"group_size": 32} | config,
                evaluation=None,
            )
            weights = packed_models.dequantized(job.output)
            key = b"".join(weights[module].tobytes() for module in sorted(weights))
            assert key not in found, f"{method} {name} is {found[key]}"
            found[key] = f"{method} {name}"


def test_rules_of_modules(tmp_path, source) -> None:
    rules = [
        {"pattern": r"layers\.0\.mlp\.down_proj", "exclude": True},
        {"pattern": r"down_proj", "bits": 8, "group_size": -1},
        {"pattern": r"q_proj", "desc_act": True, "sym": False},
    ]
    config = {"group_size": 32, "bits": 3, "format": "GPTQ_V2", "dynamic": rules}
    job = jobs.run(source, tmp_path / "output", "gptq", config)
    check(source, job, tmp_path)
    before, after = stored_tensors(source), stored_tensors(job.output)
    excluded = "model.layers.0.mlp.down_proj.weight"
    assert after[excluded] == before[excluded]
    modules = packed_models.packed_modules(after)
    assert len(modules) == 13
    down = modules["model.layers.1.mlp.down_proj"]
    assert down["qweight"].shape == (128 * 8 // 32, 64)
    assert down["scales"].shape == (1, 64)
    for name, parts in modules.items():
        natural = np.arange(len(parts["g_idx"])) // 32
        reordered = not np.array_equal(parts["g_idx"], natural) and len(parts["scales"]) > 1
        assert reordered == name.endswith("q_proj")
        zeros = packed_models.bit_stream(parts["qzeros"], 8 if "down" in name else 3)
        assert (len(np.unique(zeros)) > 1) == name.endswith("q_proj")


def test_an_output_head(tmp_path, source) -> None:
    job = jobs.run(source, tmp_path / "output", "gptq", {"group_size": 32, "lm_head": True})
    check(source, job, tmp_path)
    modules = packed_models.packed_modules(stored_tensors(job.output))
    assert modules["lm_head"]["qweight"].shape == (64 // 8, 128)
    head = job.linears["lm_head"]
    assert 0 < head.output_error < head.rounding_output_error
    config = json.loads((job.output / "config.json").read_text())["quantization_config"]
    assert config["lm_head"] is True


def test_a_tied_head_stays(tmp_path) -> None:
    tied = jobs.source("llama", tmp_path / "tied", tie_word_embeddings=True)
    job = jobs.run(tied, tmp_path / "output", "gptq", {"group_size": 32, "lm_head": True})
    assert [finding.reason for finding in job.report.findings] == ["OUTPUT_HEAD_TIED"]
    check(tied, job, tmp_path)
    assert len(packed_models.packed_modules(stored_tensors(job.output))) == 14


@pytest.mark.parametrize(
    ("method", "option"),
    [
        ("awq", {"modules_to_not_convert": ["v_proj", "model.layers.1.mlp"]}),
        (
            "gptq",
            {
                "awq_scaling": True,
                "dynamic": [
                    {"pattern": "v_proj", "exclude": True},
                    {"pattern": r"layers\.1\.mlp", "exclude": True},
                ],
            },
        ),
    ],
)
def test_modules_left_out_take_part_in_scaling(tmp_path, source, method, option) -> None:
    """What is not quantized is still divided and multiplied, in its own dtype."""
    job = jobs.run(source, tmp_path / "output", method, {"group_size": 32} | option)
    check(source, job, tmp_path)
    before, after = stored_tensors(source), stored_tensors(job.output)
    left = re.compile(r"v_proj|layers\.1\.mlp")
    kept = {name for name in before if left.search(name)}
    assert kept <= set(after)
    changed = {name for name in kept if before[name] != after[name]}
    # Nothing in the MLP of block 1 is quantized, so that nothing there needs scales.
    assert changed == {f"model.layers.{block}.self_attn.v_proj.weight" for block in (0, 1)}


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_shards(tmp_path, source, method) -> None:
    one = jobs.run(source, tmp_path / "one", method, {"group_size": 32})
    many = jobs.run(source, tmp_path / "many", method, {"group_size": 32}, max_shard_size=30_000)
    assert len(list(many.output.glob("*.safetensors"))) > 2
    assert stored_tensors(many.output) == stored_tensors(one.output)
    assert many.result.evaluation == one.result.evaluation
