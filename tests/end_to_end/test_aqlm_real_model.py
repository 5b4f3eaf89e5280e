"""AQLM beside GPTQ on the first block of a real model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file
from tests import calibrated_jobs as jobs
from tests.quantizing import real_model

from quantd_server.calibration.config import CalibrationBuiltin, CalibrationConfig

pytestmark = pytest.mark.slow

CALIBRATION = CalibrationConfig(
    builtin=CalibrationBuiltin(), num_samples=16, sequence_length=256, seed=0
)


def first_blocks(source: Path, folder: Path, count: int) -> Path:
    """A checkpoint of the embeddings, the first ``count`` blocks and the last norm."""
    folder.mkdir()
    config = json.loads((source / "config.json").read_text()) | {"num_hidden_layers": count}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    kept = {}
    with safe_open(source / "model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            parts = name.split(".")
            if parts[1] != "layers" or int(parts[2]) < count:
                kept[name] = file.get_tensor(name)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_two_codebooks_of_8_bits_are_far_better_than_gptq_with_2_bits(tmp_path) -> None:
    source = first_blocks(real_model(), tmp_path / "source", 1)
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
