"""Disks that are full or broken: the job says so and leaves nothing, the server goes on."""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path

import grpc
import msgspec
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests import calibrated_jobs, tiny_models
from tests.api.durable_servers import Watcher, hidden, jobs_of, serving, written
from tests.api.servers import refusal_of
from tests.faults.injection import Faults
from tests.faults.requests import request, write_sources
from tests.faults.small_disk import small_disk
from tests.quantizing import planned, run, specification, work_order

from quantd import v1
from quantd_server.engine import calibrated, finished_tensors, solved_blocks
from quantd_server.engine.events import StageEvent
from quantd_server.engine.specification import WorkOrder
from quantd_server.errors import QuantdError

pytestmark = pytest.mark.filterwarnings("ignore:.*:FutureWarning", "ignore:.*:UserWarning")

PAGE = 4096


@pytest.fixture
def eager(monkeypatch) -> None:
    """Everything that a job keeps on disk is kept there, as often as can be."""
    monkeypatch.setattr(finished_tensors, "SYNC_SECONDS", 0.0)
    monkeypatch.setattr(solved_blocks, "COST", math.inf)
    monkeypatch.setattr(calibrated, "ACTIVATION_BYTES", 0)


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    return calibrated_jobs.source("llama", tmp_path_factory.mktemp("sources") / "llama")


CALIBRATION = {
    "calibration": calibrated_jobs.CALIBRATION,
    "evaluation": calibrated_jobs.EVALUATION,
}


@pytest.mark.parametrize(
    ("method", "config", "options"),
    [
        ("bitsandbytes_4bit", {"bnb_4bit_quant_type": "NF4"}, {}),
        ("gguf", {"file_type": "Q4_K_M"}, {}),
        ("gptq", {"group_size": 32}, CALIBRATION),
    ],
)
def test_a_disk_that_is_full_at_any_write(tmp_path, eager, llama, method, config, options):
    source = llama if method == "gptq" else tiny_models.write(tmp_path / "plain", hidden=256)
    with small_disk(tmp_path / "disk", 256 << 20) as disk:
        output = disk.folder / ("output.gguf" if method == "gguf" else "output")
        report = planned(specification(source, output, method, config, **options))
        order = msgspec.structs.replace(work_order(report, threads=1), recoverable=True)
        empty = disk.used
        most = 0

        def look(_event) -> None:
            nonlocal most
            most = max(most, disk.used)

        run(order, on_event=look)
        expected = contents(disk.folder)
        most = max(most, disk.used)
        clear(disk.folder)
        failures = set()
        steps = 24
        for step in range(1, steps):
            disk.resize(max(PAGE, (most - empty) * step // steps // PAGE * PAGE))
            fault = fault_of(order)
            if fault is not None:
                assert fault.reason == "DISK_FULL"
                failures.add(fault.finding.message)
                assert not list(disk.folder.iterdir())
            else:
                assert contents(disk.folder) == expected
                clear(disk.folder)
        assert failures
        disk.resize(256 << 20)
        run(order)
        assert contents(disk.folder) == expected
        if method == "gptq":
            assert len(failures) > 1  # of the output, and of activations


def fault_of(order: WorkOrder) -> QuantdError | None:
    """What a job ends with, if it does not succeed."""
    try:
        run(order)
    except QuantdError as error:
        return error
    return None


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".quantd-" not in str(path.relative_to(folder))
    }


def clear(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.fixture
def faults(tmp_path, monkeypatch) -> Faults:
    return Faults(tmp_path / "faults", monkeypatch)


FAULTS = [  # call, its number, what it ends in, the reason that is told
    ("posix_fallocate", 1, "ENOSPC", "DISK_FULL"),
    ("pwrite", 1, "ENOSPC", "DISK_FULL"),
    ("pwrite", 9, "EDQUOT", "DISK_FULL"),
    ("pwrite", 4, "EIO", "OUTPUT_NOT_WRITABLE"),
    ("fsync", 1, "EIO", "OUTPUT_NOT_WRITABLE"),
    ("fsync", 4, "ENOSPC", "DISK_FULL"),
    ("rename", 1, "EIO", "OUTPUT_NOT_WRITABLE"),
    ("preadv", 1, "EIO", "READ_FAILED"),
    ("preadv", 7, "ESTALE", "READ_FAILED"),
]


@pytest.mark.parametrize(
    "chosen", [FAULTS[1::4], pytest.param(FAULTS, marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_a_worker_whose_disk_fails(tmp_path, faults, chosen):
    write_sources(tmp_path)
    with serving(tmp_path, "--threads", "1") as server:
        for number, (call, calls, fault, reason) in enumerate(chosen):
            faults.arm("worker", call, fault, calls=calls)
            watcher = Watcher()
            watcher.submit(server, request(tmp_path, "bitsandbytes_8bit", f"failed{number}"))
            watcher.watch(server)
            assert not faults.armed
            watcher.assert_whole()
            assert watcher.states() == ["QUEUED", "RUNNING", "FAILED"]
            assert reason_of(watcher.last) == reason, (call, fault)
            assert str(tmp_path) not in watcher.last.error.message
            assert not hidden(tmp_path)
            assert not (tmp_path / f"failed{number}").exists()
            assert is_serving(server)
        watcher = Watcher()
        watcher.submit(server, request(tmp_path, "bitsandbytes_8bit"))
        watcher.watch(server)
        assert watcher.states()[-1] == "SUCCEEDED"
        assert not server.events("job.fault")
    assert written(tmp_path, "output")


def test_a_store_whose_disk_fails_for_a_while(tmp_path, faults):
    """Nobody is told what is not durable, and nothing of it is lost."""
    write_sources(tmp_path)
    with serving(tmp_path, "--threads", "1") as server:
        for call in (3, 5):
            faults.arm("server", "commit", "ENOSPC", calls=call)
            watcher = Watcher()
            watcher.submit(server, request(tmp_path, "bitsandbytes_8bit", f"output{call}"))
            watcher.watch(server)
            assert not faults.armed
            watcher.assert_whole()
            assert watcher.states() == ["QUEUED", "RUNNING", "SUCCEEDED"]
        assert len(server.events("store.failed")) == len(server.events("store.recovered")) == 2
        assert len(jobs_of(server)) == 2


def test_a_state_folder_on_a_full_disk(tmp_path):
    write_sources(tmp_path)
    with (
        small_disk(tmp_path / "state", 256 << 10) as disk,
        serving(tmp_path, "--threads", "1") as server,
    ):
        refusal = None
        labels = {f"{key:02d}": "x" * 60 for key in range(60)}
        for number in range(100):
            asked = request(tmp_path, "bitsandbytes_8bit", f"output{number}")
            asked.labels.update(labels)
            with grpc.insecure_channel(server.address) as channel:
                stub = v1.QuantizationServiceStub(channel)
                try:
                    next(stub.Quantize(asked, timeout=5))
                except grpc.RpcError as error:
                    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                        continue  # waits for the store
                    refusal = refusal_of(error)
                    break
        assert refusal is not None
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.UNAVAILABLE,
            "STATE_NOT_WRITABLE",
        )
        assert is_serving(server)
        disk.resize(64 << 20)
        known = jobs_of(server)
        for job in known:
            with grpc.insecure_channel(server.address) as channel:
                v1.JobServiceStub(channel).CancelJob(v1.CancelJobRequest(name=job.name), timeout=60)
        assert server.events("store.recovered")
        for job in jobs_of(server):
            with grpc.insecure_channel(server.address) as channel:
                asked = v1.WatchJobRequest(name=job.name)
                answers = v1.JobServiceStub(channel).WatchJob(asked, timeout=60)
                events = [answer.event for answer in answers]
            kept = [event for event in events if event.WhichOneof("event") != "heartbeat"]
            assert [event.sequence for event in kept] == list(range(1, len(kept) + 1))
        assert server.stop() == 0


def reason_of(job: v1.Job) -> str:
    from google.rpc import error_details_pb2

    info = error_details_pb2.ErrorInfo()
    for detail in job.error.details:
        if detail.Unpack(info):
            return info.reason
    raise AssertionError(job.error)


def is_serving(server) -> bool:
    with grpc.insecure_channel(server.address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=10
        )
    return answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("stage", ["CALIBRATING", "EVALUATING"])
@pytest.mark.parametrize("change", ["weights", "cut", "config"])
def test_a_source_that_changes_under_a_calibrated_job(tmp_path, llama, stage, change):
    source = tmp_path / "source"
    source.mkdir()
    for file in llama.iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    report = planned(
        specification(source, tmp_path / "output", "gptq", {"group_size": 32}, **CALIBRATION)
    )
    weights = source / "model.safetensors"

    def at(event) -> None:
        if event != StageEvent(stage=stage):
            return
        if change == "weights":
            data = bytearray(weights.read_bytes())
            data[-1] ^= 1
            weights.write_bytes(data)
        elif change == "cut":
            os.truncate(weights, weights.stat().st_size // 2)
        else:
            (source / "config.json").touch()

    with pytest.raises(QuantdError) as caught:
        run(work_order(report, threads=1), on_event=at, cancelled=threading.Event())
    assert caught.value.reason == "SOURCE_CHANGED"
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
