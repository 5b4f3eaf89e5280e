"""Real jobs on a tiny model: plan, stream, watch again, cancel, stop the server."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests import tiny_models
from tests.api.server_process import ServerProcess, server_process
from tests.api.servers import refusal_of

from quantd import v1

SUCCEEDED = v1.JobState.Value("JOB_STATE_SUCCEEDED")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    tiny_models.write(folder / "model")
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with server_process(folder, "--heartbeat-interval", "0.2") as process:
        yield process
        assert not process.events("incident")
        assert process.stop() == 0


@pytest.fixture
def channel(server: ServerProcess):
    with grpc.insecure_channel(server.address) as channel:
        yield channel


def request(folder: Path, output: str, **fields) -> v1.QuantizeRequest:
    spec = v1.QuantizationSpec(
        source_uri=str(folder / "model"),
        output_uri=str(folder / output),
        method=v1.MethodConfig(bitsandbytes_4bit=v1.Bitsandbytes4BitConfig()),
    )
    return v1.QuantizeRequest(spec=spec, **fields)


def test_a_job_is_streamed_and_can_be_watched_again(channel, folder):
    quantization = v1.QuantizationServiceStub(channel)
    job_stub = v1.JobServiceStub(channel)
    asked = request(folder, "nf4", request_id=str(uuid.uuid4()), labels={"team": "a"})
    events = [answer.event for answer in quantization.Quantize(asked, timeout=120)]
    last = events[-1].snapshot
    assert last.state == SUCCEEDED, last.error
    assert events[0].WhichOneof("event") == "snapshot"
    stored = [event for event in events if event.WhichOneof("event") != "heartbeat"]
    assert [event.sequence for event in stored] == list(range(1, len(stored) + 1))
    assert (folder / "nf4" / "config.json").exists()

    again = [answer.event for answer in quantization.Quantize(asked, timeout=60)]
    assert [event.sequence for event in again] == [event.sequence for event in stored]
    rest = job_stub.WatchJob(v1.WatchJobRequest(name=last.name, after_sequence=3), timeout=60)
    assert [answer.event.sequence for answer in rest] == [e.sequence for e in stored[3:]]
    listed = job_stub.ListJobs(v1.ListJobsRequest(labels={"team": "a"}), timeout=20).jobs
    assert [job.name for job in listed] == [last.name]

    with pytest.raises(grpc.RpcError) as error:
        job_stub.WatchJob(
            v1.WatchJobRequest(name=last.name, after_sequence=10_000), timeout=20
        ).next()
    refusal = refusal_of(error.value)
    assert refusal.reason == "SEQUENCE_OUT_OF_RANGE"
    assert int(refusal.info.metadata["last_sequence"]) == len(stored)

    asked.labels["team"] = "b"
    with pytest.raises(grpc.RpcError) as error:
        next(quantization.Quantize(asked, timeout=60))
    assert refusal_of(error.value).code is grpc.StatusCode.ALREADY_EXISTS


def test_every_problem_is_told_before_a_job_exists(channel, folder):
    job_stub = v1.JobServiceStub(channel)
    before = len(job_stub.ListJobs(v1.ListJobsRequest(), timeout=20).jobs)
    (folder / "full").mkdir(exist_ok=True)
    (folder / "full" / "file").write_text("x")
    with pytest.raises(grpc.RpcError) as error:
        next(v1.QuantizationServiceStub(channel).Quantize(request(folder, "full"), timeout=60))
    refusal = refusal_of(error.value)
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.preconditions[0].type == refusal.reason
    assert len(job_stub.ListJobs(v1.ListJobsRequest(), timeout=20).jobs) == before


@pytest.mark.parametrize(
    ("uri", "code", "reason"),
    [
        ("{folder}/missing", grpc.StatusCode.NOT_FOUND, "SOURCE_NOT_FOUND"),
        ("/etc", grpc.StatusCode.INVALID_ARGUMENT, "PATH_OUTSIDE_ROOTS"),
        ("{folder}/../..", grpc.StatusCode.INVALID_ARGUMENT, "PATH_OUTSIDE_ROOTS"),
        ("hf:a/b", grpc.StatusCode.INVALID_ARGUMENT, "URI_UNSUPPORTED"),
    ],
)
def test_sources_that_cannot_be_read(channel, folder, uri, code, reason):
    stub = v1.QuantizationServiceStub(channel)
    with pytest.raises(grpc.RpcError) as error:
        stub.InspectCheckpoint(
            v1.InspectCheckpointRequest(source_uri=uri.format(folder=folder)), timeout=60
        )
    refusal = refusal_of(error.value)
    assert (refusal.code, refusal.reason) == (code, reason)
    assert refusal.info.metadata["field"] == "source_uri"


def test_pages_of_an_inspection_hold_each_tensor_once(channel, folder):
    stub = v1.QuantizationServiceStub(channel)
    asked = v1.InspectCheckpointRequest(source_uri=str(folder / "model"), page_size=5)
    names: list[str] = []
    while True:
        answer = stub.InspectCheckpoint(asked, timeout=60)
        names += [tensor.name for tensor in answer.tensors]
        if not answer.next_page_token:
            break
        asked.page_token = answer.next_page_token
    assert names == sorted(tiny_models.shapes(tiny_models.config()))
    assert answer.checkpoint.tensor_count == len(names)


def test_a_plan_has_an_estimate_once_such_a_job_has_finished(channel, folder):
    stub = v1.QuantizationServiceStub(channel)

    def planned(method: v1.MethodConfig) -> v1.Plan:
        spec = v1.QuantizationSpec(source_uri=str(folder / "model"), method=method)
        return stub.PlanQuantization(v1.PlanQuantizationRequest(spec=spec), timeout=60).plan

    asked = request(folder, "estimated")
    asked.spec.method.gguf.file_type = "GGUF_FILE_TYPE_Q5_1"
    asked.spec.output_uri += ".gguf"
    assert not planned(asked.spec.method).HasField("estimated_duration")
    *_, last = stub.Quantize(asked, timeout=120)
    result = last.event.snapshot.result
    plan = planned(asked.spec.method)
    estimated = plan.estimated_duration.ToTimedelta()
    assert estimated.total_seconds() == pytest.approx(
        result.elapsed.ToTimedelta().total_seconds(), abs=1e-5
    )
    assert "1 job with gguf Q5_1" in plan.estimate_basis


def test_loads_are_assessed_for_the_context_asked_for(channel, folder):
    stub = v1.QuantizationServiceStub(channel)
    own, longer = (
        stub.InspectCheckpoint(
            v1.InspectCheckpointRequest(source_uri=str(folder / "model"), context_length=context),
            timeout=60,
        )
        for context in (None, 1280)
    )
    assert {load.engine for load in own.loads} == {1, 2, 3, 4}
    assert longer.loads[0].kv_cache_bytes == 10 * own.loads[0].kv_cache_bytes > 0
    assert own.loads[0].free_bytes > 0
    assert [finding.reason for finding in own.findings] == []
    assert [finding.reason for finding in longer.findings] == ["CONTEXT_BEYOND_MODEL"]


def test_health_answers_while_a_job_runs(channel, folder):
    stream = v1.QuantizationServiceStub(channel).Quantize(request(folder, "busy"), timeout=120)
    health = health_pb2_grpc.HealthStub(channel)
    slowest = 0.0
    for _ in stream:
        start = time.monotonic()
        health.Check(health_pb2.HealthCheckRequest(), timeout=20)
        slowest = max(slowest, time.monotonic() - start)
    assert slowest < 2.0  # generous: the machine may be busy with other things


def test_a_stop_gives_watchers_their_last_event_and_leaves_nothing(folder):
    with server_process(folder) as server, grpc.insecure_channel(server.address) as channel:
        stream = v1.QuantizationServiceStub(channel).Quantize(
            request(folder, "stopped"), timeout=120
        )
        next(stream)
        server.process.terminate()
        last = list(stream)[-1].event.snapshot
        assert v1.JobState.Name(last.state) in ("JOB_STATE_FAILED", "JOB_STATE_SUCCEEDED")
        assert server.process.wait(60) == 0
        if last.state != SUCCEEDED:
            assert last.error.code == grpc.StatusCode.UNAVAILABLE.value[0]
            assert not (folder / "stopped").exists()
    assert not [path for path in folder.iterdir() if path.name.startswith(".stopped")]
