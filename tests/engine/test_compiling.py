"""Kernels are compiled in a process of their own, all of them before the first weight is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from tests import tiny_models
from tests.quantizing import planned, specification, work_order

NF4 = {"bnb_4bit_quant_type": "NF4", "bnb_4bit_use_double_quant": True}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return tiny_models.write(tmp_path_factory.mktemp("source") / "model")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(folder))
    return folder


def start(order) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "quantd_server.engine.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    process.stdin.write(msgspec.json.encode(order) + b"\n")
    process.stdin.flush()
    return process


def machine_code(cache: Path) -> set[Path]:
    return set(cache.rglob("*.nbc"))


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("bitsandbytes_8bit", {}),
        ("bitsandbytes_4bit", NF4),
        ("gguf", {"file_type": "Q4_0"}),
        ("gguf", {"file_type": "BF16"}),
    ],
)
def test_nothing_is_compiled_once_quantizing_begins(
    tmp_path, source, cache, method, config
) -> None:
    suffix = ".gguf" if method == "gguf" else ""
    report = planned(specification(source, tmp_path / f"output{suffix}", method, config))
    compiled = None
    with start(work_order(report)) as process:
        for line in process.stdout:
            event = json.loads(line)
            if event.get("stage") == "QUANTIZING":
                compiled = machine_code(cache)
    assert event["type"] == "result"
    assert compiled and compiled == machine_code(cache)
    again = planned(specification(source, tmp_path / f"again{suffix}", method, config))
    assert again.plan.peak_memory_bytes < report.plan.peak_memory_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the process in /proc")
@pytest.mark.parametrize("end", ["SIGTERM", "stdin"])
def test_cancelled_while_kernels_compile(tmp_path, source, cache, end) -> None:
    report = planned(specification(source, tmp_path / "output", "bitsandbytes_4bit", NF4))
    with start(work_order(report)) as process:
        while not (compiling := children(process.pid)):
            assert process.poll() is None
            time.sleep(0.02)
        started = time.monotonic()
        if end == "SIGTERM":
            process.terminate()
        else:
            process.stdin.close()
        assert process.wait(60) == 2
        assert time.monotonic() - started < 5
        assert not Path("/proc", compiling[0]).exists()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == []
