"""AQLM beside GPTQ on the first block of a real model, and large codebooks on wide layers."""

from __future__ import annotations

import numpy as np
import pytest
from bench.first_blocks import write_first_blocks
from tests import calibrated_jobs as jobs
from tests import packed_models
from tests.quantizing import planned, real_model, specification, stored_tensors

from quantd_server.calibration.config import CalibrationBuiltin, CalibrationConfig
from quantd_server.errors import Severity

pytestmark = pytest.mark.slow

CALIBRATION = CalibrationConfig(
    builtin=CalibrationBuiltin(), num_samples=16, sequence_length=256, seed=0
)


def test_two_codebooks_of_8_bits_are_far_better_than_gptq_with_2_bits(tmp_path) -> None:
    source = write_first_blocks(real_model(), tmp_path / "source", 1)
    errors, sizes = {}, {}
    for method, config in (
        ("gptq", {"bits": 2, "group_size": 64}),
        ("aqlm", {"num_codebooks": 2, "nbits_per_codebook": 8}),
    ):
        job = jobs.run(
            source,
            tmp_path / method,
            method,
            config,
            threads=2,
            calibration=CALIBRATION,
            evaluation=None,
        )
        assert not job.warnings
        events = job.linears
        assert all(event.output_error < event.rounding_output_error for event in events.values())
        errors[method] = {module: event.output_error for module, event in events.items()}
        sizes[method] = sum(event.size_bytes for event in events.values())
    assert errors["aqlm"].keys() == errors["gptq"].keys()
    ratios = [errors["aqlm"][module] / error for module, error in errors["gptq"].items()]
    # Measured: 0.56 in the mean, 0.77 for up_proj.
    assert max(ratios) < 0.85 and np.mean(ratios) < 0.65
    assert sizes["aqlm"] < sizes["gptq"]


def test_one_codebook_of_16_bits_on_a_layer_of_2048(tmp_path) -> None:
    """One linear of [512, 2048], which has twice as many groups as the codebook vectors."""
    source = jobs.source(
        "llama",
        tmp_path / "source",
        hidden_size=2048,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=16,
        num_key_value_heads=4,
        head_dim=128,
    )
    tensors = stored_tensors(source)
    key = "model.layers.0.self_attn.k_proj"
    others = [
        name for name in tensors if name.endswith("_proj.weight") and not name.startswith(key)
    ]
    config = {
        "num_codebooks": 1,
        "nbits_per_codebook": 16,
        "linear_weights_not_to_quantize": [*others, "lm_head.weight"],
        "init_max_iter": 2,
        "max_epochs": 1,
        "finetune_max_epochs": 1,
    }
    job = jobs.run(source, tmp_path / "output", "aqlm", config, threads=2, evaluation=None)
    (event,) = job.linears.values()
    assert event.output_error < event.rounding_output_error < 0.9
    assert event.block_output_error <= event.untuned_block_output_error
    stored = stored_tensors(job.output)
    assert stored[f"{key}.codes"][:2] == ("I16", (512, 256, 1))
    assert stored[f"{key}.codebooks"][:2] == ("F16", (1, 65536, 1, 8))
    codes = packed_models.array(stored[f"{key}.codes"])
    assert codes.min() < 0 < codes.max()  # indices beyond 32767 wrap around
    weight = packed_models.array(tensors[f"{key}.weight"])
    lost = np.square(packed_models.dequantized(job.output)[f"{key}.weight"] - weight).sum()
    assert event.relative_error == pytest.approx((lost / np.square(weight).sum()) ** 0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("bits", "reason"), [(16, "AQLM_TOO_FEW_GROUPS"), (14, "AQLM_BITS_TOO_MANY")]
)
def test_a_codebook_of_16_bits_is_refused_where_layers_are_small(tmp_path, bits, reason) -> None:
    source = jobs.source("llama", tmp_path / "source", hidden_size=384, intermediate_size=384)
    config = {"num_codebooks": 1, "nbits_per_codebook": bits}
    report = planned(
        specification(source, tmp_path / "output", "aqlm", config, calibration=jobs.CALIBRATION)
    )
    assert not report.executable
    (finding,) = (one for one in report.findings if one.severity is Severity.ERROR)
    assert finding.reason == reason and finding.remedy
