"""Outputs in transformers with gptqmodel's kernels, and packers against gptqmodel's own.

The Python that has gptqmodel is named by QUANTD_GPTQMODEL_PYTHON; `make gptqmodel` builds one. Its
first load compiles kernels, for a minute or more.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests import calibrated_jobs as jobs
from tests import packed_models
from tests.quantizing import real_model

from quantd_server.calibration.config import CalibrationConfig, CalibrationTokens, TokenSequence
from quantd_server.calibration.texts import CALIBRATION_TEXT
from quantd_server.calibration.tokenizer import open_tokenizer
from quantd_server.kernels.awq import packing as awq
from quantd_server.kernels.gptq import packing as gptq

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*:FutureWarning", "ignore:.*:UserWarning"),
]

# Not here: rules for modules and a quantized head, which transformers does not read; a plan for it
# says so (MODULE_SETTINGS_NOT_READ, OUTPUT_HEAD_NOT_READ).
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "gptq": ("gptq", {"sym": True}),
    "gptq-natural": ("gptq", {"sym": True, "act_group_aware": False}),
    "gptq-asym": ("gptq", {"sym": False}),
    "gptq-act": ("gptq", {"desc_act": True}),
    "gptq-act-asym": ("gptq", {"desc_act": True, "sym": False}),
    "gptq-sym-v2": ("gptq", {"format": "GPTQ_V2"}),
    "gptq-rows": ("gptq", {"group_size": -1}),
    "gptq-scaled": ("gptq", {"awq_scaling": True, "sym": False}),
    "gptq-2-bit": ("gptq", {"bits": 2, "sym": False}),
    "gptq-3-bit": ("gptq", {"bits": 3}),
    "gptq-3-bit-asym": ("gptq", {"bits": 3, "sym": False}),
    "gptq-8-bit": ("gptq", {"bits": 8}),
    "awq": ("awq", {}),
    "awq-rows": ("awq", {"group_size": -1}),
    "awq-solver": ("awq", {"gptq_solver": True}),
    "awq-without": ("awq", {"modules_to_not_convert": ["v_proj", "model.layers.0.mlp"]}),
}
EXACT = 1e-5
"""Of the largest logit: kernels that multiply in float32, in an order of their own."""

IN_BFLOAT16 = 3e-2
"""Kernels that multiply in bfloat16 ("Fused"): 8 bits for every weight and every activation."""

REAL = ("gptq", "gptq-act-asym", "awq")


@pytest.fixture(scope="session")
def python() -> str:
    """The Python that has gptqmodel."""
    named = os.environ.get("QUANTD_GPTQMODEL_PYTHON")
    if not named:
        pytest.skip("QUANTD_GPTQMODEL_PYTHON names no Python (`make gptqmodel` builds one)")
    return named


def run_script(python: str, name: str, *arguments: str, text: str = "") -> str:
    """Standard output of a script beside this file."""
    # With two cores gptqmodel's default of one worker is not enough for itself.
    environment = os.environ | {"GPTQMODEL_CPU_WORKERS": "2", "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [python, str(Path(__file__).with_name(name)), *arguments],
        input=text,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def read(
    python: str, outputs: dict[str, Path], tokens: list[list[int]], folder: Path
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Logits by name, and what the reader says of each checkpoint."""
    request = {
        "checkpoints": {name: str(path) for name, path in outputs.items()},
        "tokens": tokens,
        "dtype": "float32",
        "output": str(folder),
    }
    report = json.loads(run_script(python, "gptqmodel_reader.py", text=json.dumps(request)))
    return {name: np.load(folder / f"{name}.npy") for name in outputs}, report


def expected_logits(output: Path, tokens: list[list[int]], folder: Path) -> np.ndarray:
    """Of our own dequantization. gptqmodel's kernels round each dequantized weight to float16."""
    weights = {
        name: weight.astype(np.float16).astype(np.float32)
        for name, weight in packed_models.dequantized(output).items()
    }
    plain = packed_models.write_dequantized(output, folder / f"{output.name}-plain", weights)
    return packed_models.logits(plain, tokens)


def compare(python: str, outputs: dict[str, Path], tokens: list[list[int]], folder: Path) -> None:
    found, report = read(python, outputs, tokens, folder)
    for name, output in outputs.items():
        assert report[name]["layers"], f"{name}: no layer is quantized"
        assert len(report[name]["generated"]) > 8
        expected = expected_logits(output, tokens, folder)
        difference = np.abs(found[name] - expected).max() / np.abs(expected).max()
        print(f"{name}: {report[name]['layers']}, largest difference {difference:.1e}")
        fused = any("Fused" in layer for layer in report[name]["layers"])
        assert difference < (IN_BFLOAT16 if fused else EXACT), name


def test_a_tiny_model(tmp_path, python) -> None:
    source = jobs.source("llama", tmp_path / "source", dtype=torch.float16, num_key_value_heads=4)
    outputs = {}
    for name, (method, config) in RECIPES.items():
        job = jobs.run(
            source, tmp_path / name, method, {"group_size": 32} | config, evaluation=None
        )
        outputs[name] = job.output
    compare(python, outputs, jobs.EVALUATED, tmp_path)


def test_a_real_model(tmp_path, python) -> None:
    source = real_model()
    tokens = text_tokens(source)
    sequences = [tokens[first : first + 256] for first in range(0, 1024, 256)]
    data = CalibrationConfig(
        tokens=CalibrationTokens(
            sequences=tuple(TokenSequence(ids=tuple(ids)) for ids in sequences)
        )
    )
    outputs = {}
    for name in REAL:
        method, config = RECIPES[name]
        config = {"group_size": 64} | config
        outputs[name] = jobs.run(
            source, tmp_path / name, method, config, threads=2, calibration=data, evaluation=None
        ).output
    compare(python, outputs, [tokens[1024:1088]], tmp_path)


def text_tokens(source: Path) -> list[int]:
    """1,088 tokens of the text that comes with the server."""
    text = CALIBRATION_TEXT.read_text(encoding="utf-8")[:20_000]
    (ids,) = open_tokenizer(source).encode([text], add_special_tokens=False)
    return list(ids)[:1088]


CASES = [("gptq_v2", bits) for bits in gptq.BITS] + [("gptq", bits) for bits in gptq.BITS]


def test_packers_bit_for_bit(tmp_path, python) -> None:
    ours = {}
    for storage, bits in [*CASES, ("gemm", 4)]:
        for rows, columns, groups in ((64, 96, 3), (32, 128, 1), (96, 64, 4)):
            name = f"{storage}-{bits}-{rows}"
            rng = np.random.default_rng(rows + bits)
            lowest = 1 if storage == "gptq" else 0
            index = np.arange(columns, dtype=np.int32) // (columns // groups)
            if storage != "gemm":
                index = rng.permutation(index)
            codes = rng.integers(0, 1 << bits, (rows, columns), np.uint8)
            scales = (rng.random((rows, groups)) + 0.01).astype(np.float16).astype(np.float32)
            zeros = rng.integers(lowest, 1 << bits, (rows, groups), np.uint8)
            np.savez(
                tmp_path / name,
                codes=codes, scales=scales, zeros=zeros, g_idx=index, bits=bits, format=storage,
            )  # fmt: skip
            ours[name] = (
                awq.pack(codes, scales, zeros)
                if storage == "gemm"
                else gptq.pack(codes, scales, zeros, index, bits=bits, v2=storage == "gptq_v2")
            )
    run_script(python, "gptqmodel_packer.py", *(str(tmp_path / f"{name}.npz") for name in ours))
    for name, packed in ours.items():
        with np.load(tmp_path / f"{name}.npz") as theirs:
            assert set(theirs) == set(packed._fields)
            for part in packed._fields:
                got, expected = getattr(packed, part), theirs[part]
                assert got.dtype == expected.dtype, (name, part)
                np.testing.assert_array_equal(got, expected, f"{name} {part}")
