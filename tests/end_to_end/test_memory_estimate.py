"""What a plan says of memory, beside what the worker then takes: at least that, at most 1.3 times.

Each case starts with an empty kernel cache, so that the first run compiles.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests import hosts, tiny_models
from tests.quantizing import planned, specification, work_order

METHODS = {
    "int8": ("bitsandbytes_8bit", {}),
    "nf4-double": (
        "bitsandbytes_4bit",
        {"bnb_4bit_quant_type": "NF4", "bnb_4bit_use_double_quant": True},
    ),
    "Q8_0": ("gguf", {"file_type": "Q8_0"}),
    "BF16": ("gguf", {"file_type": "BF16"}),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "model"
    return tiny_models.write(folder, hidden=2048, intermediate=4096, layers=2, heads=16)


def measure(source: Path, output: Path, method: str, config: dict, threads: int) -> tuple[int, int]:
    """What the plan says, and what the worker says."""
    cpu = msgspec.structs.replace(hosts.NO_GPU.cpu, usable_cores=threads)
    host = msgspec.structs.replace(hosts.NO_GPU, cpu=cpu)
    report = planned(specification(source, output, method, config), host)
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
