"""The worker process: its protocol, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests import tiny_models
from tests.quantizing import planned, specification, work_order

from quantd_server.checkpoint.output import working_directory
from quantd_server.engine.specification import WorkOrder
from quantd_server.engine.worker import _is_out_of_memory

SECONDS = 60.0


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return tiny_models.write(tmp_path_factory.mktemp("small") / "source")


@pytest.fixture(scope="module")
def slow(tmp_path_factory) -> Path:
    return tiny_models.write_slow(tmp_path_factory.mktemp("slow") / "source")


@contextlib.contextmanager
def worker(order: WorkOrder | bytes, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    line = order if isinstance(order, bytes) else msgspec.json.encode(order) + b"\n"
    with subprocess.Popen(
        [sys.executable, "-m", "quantd_server.engine.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    ) as process:
        try:
            process.stdin.write(line)
            process.stdin.flush()
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[bytes]) -> tuple[int, list[dict[str, Any]]]:
    """Its exit status and what it still said. Standard input stays open meanwhile."""
    events = [json.loads(line) for line in process.stdout]
    return process.wait(SECONDS), events


def until(process: subprocess.Popen[bytes], kind: str) -> dict[str, Any]:
    """The next event of a kind."""
    for line in process.stdout:
        event = json.loads(line)
        if event["type"] == kind:
            return event
    raise AssertionError(f"the worker ended without {kind}: {process.stderr.read()!r}")


def slow_order(slow: Path, folder: Path) -> WorkOrder:
    spec = specification(slow, folder / "x.gguf", "gguf", {"file_type": "IQ4_XS"})
    return work_order(planned(spec))


def test_a_job_that_succeeds(tmp_path, small) -> None:
    spec = specification(small, tmp_path / "output", "bitsandbytes_4bit")
    with worker(work_order(planned(spec))) as process:
        status, events = ended(process)
        assert process.stderr.read() == b""
    assert status == 0
    assert events[0] == {"type": "stage", "stage": "PREPARING"}
    assert events[-1]["type"] == "result"
    assert (tmp_path / "output" / "model.safetensors").exists()


def test_a_job_that_fails(tmp_path, small) -> None:
    spec = specification(small, tmp_path / "output", "bitsandbytes_4bit")
    order = work_order(planned(spec))
    with worker(msgspec.structs.replace(order, source_fingerprint="another")) as process:
        status, events = ended(process)
        assert process.stderr.read() == b""
    assert status == 1
    assert events[-1]["type"] == "failure"
    assert events[-1]["finding"]["reason"] == "SOURCE_CHANGED"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("end", ["SIGTERM", "stdin"])
def test_asked_to_stop_it_stops_and_leaves_nothing(tmp_path, slow, end) -> None:
    with worker(slow_order(slow, tmp_path)) as process:
        until(process, "tensor")
        assert list(tmp_path.iterdir())
        started = time.monotonic()
        if end == "SIGTERM":
            process.terminate()
        else:
            process.stdin.close()
        status, events = ended(process)
        assert time.monotonic() - started < 5
    assert status == 2
    assert not [event for event in events if event["type"] in ("result", "failure")]
    assert not list(tmp_path.iterdir())


def test_a_server_that_reads_no_more_does_not_keep_it_alive(tmp_path, slow) -> None:
    with worker(slow_order(slow, tmp_path)) as process:
        until(process, "tensor")
        process.stdout.close()
        process.stdin.close()
        assert process.wait(SECONDS) == 2
    assert not list(tmp_path.iterdir())


def test_killed_it_leaves_only_the_hidden_folder(tmp_path, slow) -> None:
    order = slow_order(slow, tmp_path)
    with worker(order) as process:
        until(process, "tensor")
        process.kill()
        assert process.wait(SECONDS) == -signal.SIGKILL
    hidden = working_directory(Path(order.output_path), order.job_id)
    assert list(tmp_path.iterdir()) == [hidden]


@pytest.mark.parametrize(
    "line",
    [b"\n", b"nonsense\n", b"{}\n", b'{"job_id": "x"}\n', b"\xff\xfe\n", b"[" * 100_000 + b"\n"],
)
def test_an_order_that_makes_no_sense(tmp_path, line) -> None:
    with worker(line, cwd=tmp_path) as process:
        status, events = ended(process)
    assert status == 1
    (event,) = events
    assert event["type"] == "failure"
    assert event["finding"]["reason"] == "INTERNAL"
    assert not list(tmp_path.iterdir())


def test_no_order_at_all(tmp_path) -> None:
    with worker(b"", cwd=tmp_path) as process:
        process.stdin.close()
        status, _ = ended(process)
    assert status != 0


def test_a_fault_of_ours_is_logged_and_told_without_details(tmp_path, small) -> None:
    spec = specification(small, tmp_path / "output", "bitsandbytes_4bit")
    order = msgspec.structs.replace(work_order(planned(spec)), job_id="not/a valid id")
    with worker(order) as process:
        status, events = ended(process)
        assert b"Traceback" in process.stderr.read()
    assert status == 1
    assert events[-1]["finding"]["reason"] == "INTERNAL"
    assert str(tmp_path) not in json.dumps(events)


@pytest.mark.parametrize("method", ["bitsandbytes_8bit", "gguf"])
def test_a_disk_that_is_full(tmp_path, small, method) -> None:
    # A limit on the size of files is met where a full disk is: by the kernel, in every write.
    output = tmp_path / ("output.gguf" if method == "gguf" else "output")
    order = work_order(planned(specification(small, output, method)))

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    with worker(order, preexec_fn=limited, env=environment) as process:
        status, events = ended(process)
    assert status == 1
    assert events[-1]["finding"]["reason"] == "DISK_FULL"
    assert not list(tmp_path.iterdir())


def test_memory_that_runs_out(tmp_path, small) -> None:
    order = work_order(planned(specification(small, tmp_path / "output", "bitsandbytes_4bit")))
    code = (
        "import quantd_server.engine.worker as worker\n"
        "def run(self): raise MemoryError\n"
        "worker.JobRun.run = run\n"
        "raise SystemExit(worker.main())\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code],
        input=msgspec.json.encode(order) + b"\n",
        capture_output=True,
        check=False,
    )
    assert finished.returncode == 1
    assert json.loads(finished.stdout)["finding"]["reason"] == "OUT_OF_MEMORY"


def test_what_torch_raises_without_memory_is_known() -> None:
    import torch

    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 55, dtype=torch.uint8)
    assert _is_out_of_memory(raised.value)
    assert _is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not _is_out_of_memory(RuntimeError("shapes do not match"))
