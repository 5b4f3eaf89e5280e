"""What a plan says of memory, beside what the worker then takes: at least that, at most 1.3 times.

Each case starts with an empty kernel cache, so that the first run compiles.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests import hosts, tiny_models
from tests.quantizing import planned, specification, work_order

from quantd_server.calibration.config import CalibrationConfig, EvaluationConfig

METHODS = {
    "int8": ("bitsandbytes_8bit", {}),
    "nf4-double": (
        "bitsandbytes_4bit",
        {"bnb_4bit_quant_type": "NF4", "bnb_4bit_use_double_quant": True},
    ),
    "Q8_0": ("gguf", {"file_type": "Q8_0"}),
    "BF16": ("gguf", {"file_type": "BF16"}),
}

CALIBRATED = {
    "gptq": ("gptq", {"bits": 4, "group_size": 128}),
    "gptq-head": ("gptq", {"bits": 4, "group_size": 128, "lm_head": True}),
    "awq": ("awq", {"bits": 4, "group_size": 128}),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "model"
    return tiny_models.write(folder, hidden=2048, intermediate=4096, layers=2, heads=16)


def tokens(sequences: int, length: int) -> dict:
    """Data for a job, of random token ids."""
    generator = random.Random(sequences)
    ids = [generator.choices(range(tiny_models.VOCABULARY), k=length) for _ in range(sequences)]
    return {"tokens": {"sequences": [{"ids": sequence} for sequence in ids]}}


def measure(
    source: Path, output: Path, method: str, config: dict, threads: int, **data: msgspec.Struct
) -> tuple[int, int]:
    """What the plan says, and what the worker says. ``data``: other fields of the spec."""
    cpu = msgspec.structs.replace(hosts.NO_GPU.cpu, usable_cores=threads)
    host = msgspec.structs.replace(hosts.NO_GPU, cpu=cpu)
    report = planned(specification(source, output, method, config, **data), host)
    process = subprocess.Popen(
        [sys.executable, "-m", "quantd_server.engine.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )
    with process:
        # Standard input stays open: its end would stop the worker.
        process.stdin.write(msgspec.json.encode(work_order(report, threads=threads)) + b"\n")
        process.stdin.flush()
        result = json.loads(list(process.stdout)[-1])
    return report.plan.peak_memory_bytes, result["peak_memory_bytes"]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "config"), METHODS.values(), ids=METHODS)
def test_the_estimate_holds(tmp_path, monkeypatch, source, method, config) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    suffix = ".gguf" if method == "gguf" else ""
    runs = {}
    for name, threads in (("cold", 2), ("warm", 2), ("warm, one thread", 1), ("warm, four", 4)):
        output = tmp_path / f"{name}{suffix}"
        estimate, measured = measure(source, output, method, config, threads)
        runs[name] = (estimate, measured, round(estimate / measured, 2))
    assert all(1 <= ratio <= 1.3 for _, _, ratio in runs.values()), runs
    assert runs["cold"][0] > runs["warm"][0]
    assert runs["warm, one thread"][0] < runs["warm"][0] < runs["warm, four"][0]


@pytest.mark.slow
@pytest.mark.parametrize("evaluated", [False, True], ids=["", "evaluated"])
@pytest.mark.parametrize(("method", "config"), CALIBRATED.values(), ids=CALIBRATED)
def test_the_estimate_of_a_calibrated_job_holds(
    tmp_path, source, method, config, evaluated
) -> None:
    data = {"calibration": msgspec.convert(tokens(32, 128), CalibrationConfig)}
    if evaluated:
        data["evaluation"] = msgspec.convert(tokens(16, 128), EvaluationConfig)
    estimate, measured = measure(source, tmp_path / "output", method, config, 2, **data)
    assert 1 <= estimate / measured <= 1.3, (estimate, measured)
