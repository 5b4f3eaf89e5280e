"""Servers that are killed, and what the next one makes of their jobs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
import uuid
from pathlib import Path

import grpc
import pytest
from tests import tiny_models
from tests.api.durable_servers import Watcher, hidden, jobs_of, kill, serving, written
from tests.api.server_process import COMMAND, environment
from tests.api.servers import refusal_of

from quantd import v1


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    tiny_models.write(folder / "small")
    tiny_models.write_slow(folder / "slow")
    return folder


@pytest.fixture
def folder(tmp_path, sources) -> Path:
    for source in sources.iterdir():
        copy = tmp_path / source.name
        copy.mkdir()
        for file in source.iterdir():
            os.link(file, copy / file.name)
    return tmp_path


def request(folder: Path, output: str, *, slow: bool) -> v1.QuantizeRequest:
    """A slow job takes seconds and makes a .gguf file; the other one makes a folder."""
    method = (
        v1.MethodConfig(gguf=v1.GgufConfig(file_type="GGUF_FILE_TYPE_IQ4_XS"))
        if slow
        else v1.MethodConfig(bitsandbytes_4bit=v1.Bitsandbytes4BitConfig())
    )
    spec = v1.QuantizationSpec(
        source_uri=str(folder / ("slow" if slow else "small")),
        output_uri=str(folder / (f"{output}.gguf" if slow else output)),
        method=method,
    )
    return v1.QuantizeRequest(spec=spec, request_id=str(uuid.uuid4()))


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 14))]
)
def test_jobs_outlive_servers_that_are_killed_at_any_moment(folder, seed):
    moments = random.Random(seed)
    asked = [
        request(folder, "first", slow=False),
        request(folder, "running", slow=True),
        request(folder, "waiting", slow=False),
    ]
    watchers = [Watcher() for _ in asked]
    with serving(folder) as server:
        for watcher, each in zip(watchers, asked, strict=True):
            watcher.submit(server, each)
        watchers[0].watch(server)
        finished = watchers[0].last
        watchers[1].watch(server, count=moments.randrange(1, 12))
        time.sleep(moments.uniform(0, 1))
        kill(server)
    with serving(folder) as server:
        # What was finished is as it was.
        with grpc.insecure_channel(server.address) as channel:
            stub = v1.JobServiceStub(channel)
            assert stub.GetJob(v1.GetJobRequest(name=finished.name), timeout=60).job == finished
            again = stub.WatchJob(v1.WatchJobRequest(name=finished.name), timeout=60)
            assert [answer.event for answer in again] == watchers[0].events
        # The same requests mean the same jobs.
        for watcher, each in zip(watchers, asked, strict=True):
            assert watcher.submit(server, each).name == watcher.name
        watchers[1].watch(server, seconds=moments.uniform(0.2, 4))
        kill(server)
    with serving(folder) as server:
        for watcher in watchers[1:]:
            watcher.watch(server)
        undisturbed = Watcher()
        undisturbed.submit(server, request(folder, "alone/running", slow=True))
        undisturbed.watch(server)
        assert len(jobs_of(server)) == 4
        assert server.stop() == 0
    for watcher in watchers:
        watcher.assert_whole()
        assert watcher.states()[-1] == "SUCCEEDED", watcher.last.error
    assert watchers[0].states() == ["QUEUED", "RUNNING", "SUCCEEDED"]
    assert set(watchers[1].warnings()) <= {"JOB_RETRIED"}
    assert written(folder, "running") == written(folder / "alone", "running")
    assert written(folder, "waiting") == written(folder, "first")
    assert not hidden(folder)


def test_a_job_that_gets_no_further_has_three_attempts(folder):
    watcher = Watcher()
    for attempt in range(3):
        with serving(folder) as server:
            if attempt == 0:
                watcher.submit(server, request(folder, "output", slow=True))
            watcher.watch(server, count=1)
            while not watcher.events[-1].HasField("stage"):  # the first one, before any tensor
                watcher.watch(server, count=1)
            kill(server)
    with serving(folder) as server:
        watcher.watch(server)
    watcher.assert_whole()
    assert watcher.states() == [*(["QUEUED", "RUNNING"] * 3), "FAILED"]
    assert watcher.warnings() == ["JOB_RETRIED"] * 2
    assert watcher.last.error.code == grpc.StatusCode.UNAVAILABLE.value[0]
    assert "3 workers" in watcher.last.error.message
    assert not hidden(folder)


def test_a_job_that_was_being_cancelled_is_cancelled(folder):
    watcher = Watcher()
    with serving(folder) as server:
        watcher.submit(server, request(folder, "output", slow=True))
        watcher.watch(server, count=1)
        with grpc.insecure_channel(server.address) as channel:
            asked = v1.CancelJobRequest(name=watcher.name, reason="changed my mind")
            v1.JobServiceStub(channel).CancelJob(asked, timeout=60)
        kill(server)
    with serving(folder) as server:
        watcher.watch(server)
    watcher.assert_whole()
    assert watcher.states() == ["QUEUED", "RUNNING", "CANCELLING", "CANCELLED"]
    assert "changed my mind" in watcher.last.error.message
    assert not (folder / "output.gguf").exists()
    assert not hidden(folder)


def test_a_source_that_changed_meanwhile_is_not_mixed_in(folder):
    watcher = Watcher()
    with serving(folder) as server:
        watcher.submit(server, request(folder, "output", slow=True))
        watcher.watch(server, count=3)
        kill(server)
    (weights,) = (folder / "slow").glob("*.safetensors")
    data = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(data[:-2] + b"\0\0")
    with serving(folder) as server:
        watcher.watch(server)
    watcher.assert_whole()
    assert watcher.states()[-1] == "FAILED"
    assert "the source has changed" in watcher.last.error.message


def test_a_server_that_is_stopped_leaves_its_jobs_to_the_next(folder):
    watcher, waiting = Watcher(), Watcher()
    with serving(folder) as server, grpc.insecure_channel(server.address) as channel:
        watcher.submit(server, request(folder, "output", slow=True))
        waiting.submit(server, request(folder, "waiting", slow=False))
        stream = v1.JobServiceStub(channel).WatchJob(
            v1.WatchJobRequest(name=watcher.name, after_sequence=1), timeout=120
        )
        while not watcher.events[-1].HasField("tensor"):
            event = next(stream).event
            if event.WhichOneof("event") != "heartbeat":
                watcher.events.append(event)
        server.process.terminate()
        refusal = None
        try:
            for answer in stream:
                if answer.event.WhichOneof("event") != "heartbeat":
                    watcher.events.append(answer.event)
        except grpc.RpcError as error:
            refusal = refusal_of(error)
        assert refusal is not None
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        assert server.process.wait(60) == 0
    assert watcher.states() == ["QUEUED", "RUNNING", "QUEUED"]
    (left,) = hidden(folder)  # for the next worker to go on with
    assert (folder / left / "tensors").read_bytes().count(b"\n") > 1
    with serving(folder) as server:
        alone = Watcher()
        alone.submit(server, request(folder, "alone/output", slow=True))
        for each in (watcher, waiting, alone):
            each.watch(server)
            each.assert_whole()
            assert each.states()[-1] == "SUCCEEDED"
    assert not watcher.warnings()
    assert not hidden(folder)
    assert written(folder, "output") == written(folder / "alone", "output")


def test_worker_and_server_may_be_killed_together(folder):
    watcher = Watcher()
    with serving(folder) as server:
        watcher.submit(server, request(folder, "output", slow=True))
        watcher.watch(server, count=3)
        (started,) = server.events("job.started")
        server.process.send_signal(signal.SIGSTOP)  # so that it does not hear of it
        os.kill(started["worker_pid"], signal.SIGKILL)
        kill(server)
    with serving(folder) as server:
        alone = Watcher()
        alone.submit(server, request(folder, "alone/output", slow=True))
        for each in (watcher, alone):
            each.watch(server)
            each.assert_whole()
    assert watcher.states() == ["QUEUED", "RUNNING", "QUEUED", "RUNNING", "SUCCEEDED"]
    assert watcher.warnings() == ["JOB_RETRIED"]
    assert written(folder, "output") == written(folder / "alone", "output")
    assert not hidden(folder)


def test_a_cancelled_job_that_waits_for_another_attempt_leaves_nothing(folder):
    watcher, busy = Watcher(), Watcher()
    with serving(folder) as server:
        watcher.submit(server, request(folder, "output", slow=True))
        busy.submit(server, request(folder, "busy", slow=True))
        watcher.watch(server, count=8)
        kill(server)
    # What the killed worker leaves depends on the moment; this is not up to it.
    left = folder / f".output.gguf.quantd-{watcher.name.removeprefix('jobs/')}"
    (left / "output").mkdir(parents=True, exist_ok=True)
    with serving(folder) as server, grpc.insecure_channel(server.address) as channel:
        stub = v1.JobServiceStub(channel)
        for each in (busy, watcher):
            stub.CancelJob(v1.CancelJobRequest(name=each.name), timeout=60)
            each.watch(server)
            assert each.states()[-1] == "CANCELLED"
    assert not hidden(folder)


def test_a_deleted_job_stays_deleted(folder):
    watcher = Watcher()
    with serving(folder) as server, grpc.insecure_channel(server.address) as channel:
        watcher.submit(server, request(folder, "output", slow=False))
        watcher.watch(server)
        asked = v1.DeleteJobRequest(name=watcher.name, delete_output=True)
        v1.JobServiceStub(channel).DeleteJob(asked, timeout=60)
        kill(server)
    with serving(folder) as server:
        assert not jobs_of(server)
    assert not (folder / "output").exists()


def test_a_second_server_on_the_same_state_folder_is_refused(folder):
    with serving(folder):
        state = ("--state", str(folder / "state"))
        result = subprocess.run(
            [*COMMAND, "--listen", "127.0.0.1:0", *state, "--source-root", str(folder)],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment(),
            cwd=folder,
            check=False,
        )
    assert result.returncode == 2
    assert "STATE_IN_USE" in result.stderr
    assert "Traceback" not in result.stderr


def test_only_the_operator_can_read_the_state_folder(folder):
    with serving(folder):
        assert (folder / "state").stat().st_mode & 0o777 == 0o700
        for file in (folder / "state").iterdir():
            assert file.stat().st_mode & 0o077 == 0, file.name
