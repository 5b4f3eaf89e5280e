"""The methods of both services, with scripted services behind them."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tests.api.servers import SPEC, ScriptedJobs, ScriptedPlanner, refused, running

from quantd import v1
from quantd_server.api.translation import to_message
from quantd_server.errors import Finding, QuantdError, Severity

SPEC_MESSAGE = to_message(SPEC, v1.QuantizationSpec)


@pytest.fixture
def job_stub(scripted):
    return v1.JobServiceStub(scripted.channel)


@pytest.fixture
def stub(scripted):
    return v1.QuantizationServiceStub(scripted.channel)


async def test_capabilities_are_answered_from_what_is_ready(scripted, stub):
    first = await stub.GetCapabilities(v1.GetCapabilitiesRequest())
    assert first.host.cpu_count >= 1
    assert first.host.memory_total_bytes > 1 << 28
    assert first.devices[0].kind == v1.DeviceKind.Value("DEVICE_KIND_CPU")
    assert first.limits.max_violations == 32
    durations = []
    for _ in range(200):
        start = time.perf_counter()
        await scripted.services.capabilities.current()
        durations.append(time.perf_counter() - start)
    assert sorted(durations)[100] < 0.001


async def test_capabilities_name_the_gguf_file_types_of_the_spec(stub):
    answer = await stub.GetCapabilities(v1.GetCapabilitiesRequest())
    gguf = next(m for m in answer.methods if m.method == v1.Method.Value("METHOD_GGUF"))
    served = {info.file_type for info in gguf.gguf_file_types}
    assert served == set(v1.GgufFileType.values()) - {0}
    assert "llama" in gguf.model_types
    needing = {v1.GgufFileType.Name(i.file_type) for i in gguf.gguf_file_types if i.needs_imatrix}
    assert needing == {"GGUF_FILE_TYPE_Q2_K_S"}


async def test_all_methods_run(stub):
    answer = await stub.GetCapabilities(v1.GetCapabilitiesRequest())
    unmet = {
        v1.Method.Name(item.method): {each.reason for each in item.quantize.unmet}
        for item in answer.methods
    }
    assert unmet.keys() == set(v1.Method.keys()) - {"METHOD_UNSPECIFIED"}
    assert set().union(*unmet.values()) <= {"PACKAGE_MISSING"}


async def test_quantize_streams_the_new_job(scripted, stub, jobs):
    request = v1.QuantizeRequest(spec=SPEC_MESSAGE, labels={"team": "a"})
    events = [answer.event async for answer in stub.Quantize(request)]
    assert [event.sequence for event in events] == [1, 2, 3]
    assert jobs.submitted[0]["labels"] == {"team": "a"}
    assert jobs.submitted[0]["requested"] == SPEC
    assert (await scripted.logged_call())["job"] == "jobs/0"


async def test_warnings_do_not_stop_a_job(tmp_path):
    warning = Finding(severity=Severity.WARNING, field="", reason="ODD", message="odd", remedy="")
    async with running(tmp_path, planner=ScriptedPlanner(warning), jobs=ScriptedJobs()) as server:
        stub = v1.QuantizationServiceStub(server.channel)
        assert len([a async for a in stub.Quantize(v1.QuantizeRequest(spec=SPEC_MESSAGE))]) == 3
        plan = await stub.PlanQuantization(v1.PlanQuantizationRequest(spec=SPEC_MESSAGE))
        assert plan.executable
        assert plan.findings[0].reason == "ODD"


async def test_a_repeated_request_is_not_planned_again(scripted, stub, jobs):
    job = jobs.add("jobs/mine")
    jobs.find_request = lambda *_: job
    await stub.Quantize(v1.QuantizeRequest(spec=SPEC_MESSAGE)).read()
    assert not scripted.services.planner.calls
    assert not jobs.submitted


async def test_pages_of_a_plan(stub):
    request = v1.PlanQuantizationRequest(spec=SPEC_MESSAGE, page_size=10)
    first = await stub.PlanQuantization(request)
    assert first.next_page_token
    request.page_token = first.next_page_token
    assert (await stub.PlanQuantization(request)).next_page_token != first.next_page_token
    request.spec.source_uri = "/other"
    refusal = await refused(stub.PlanQuantization(request))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == "PAGE_TOKEN_INVALID"


async def test_pages_of_jobs_hold_each_once_while_new_ones_come_in(job_stub, jobs):
    for index in range(5):
        jobs.add(f"jobs/{index}")
    request = v1.ListJobsRequest(page_size=2)
    seen = []
    while True:
        answer = await job_stub.ListJobs(request)
        seen += [job.name for job in answer.jobs]
        jobs.add(f"jobs/new-{len(seen)}")
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert seen == ["jobs/4", "jobs/3", "jobs/2", "jobs/1", "jobs/0"]


async def test_page_sizes_of_jobs(job_stub, jobs):
    for index in range(600):
        jobs.add(f"jobs/{index}")
    assert len((await job_stub.ListJobs(v1.ListJobsRequest())).jobs) == 50
    assert len((await job_stub.ListJobs(v1.ListJobsRequest(page_size=10_000))).jobs) == 500


async def test_filters_of_jobs(job_stub, jobs):
    jobs.add("jobs/a", state="RUNNING", labels={"team": "a"})
    jobs.add("jobs/b", state="FAILED")

    async def names(**fields):
        answer = await job_stub.ListJobs(v1.ListJobsRequest(**fields))
        return [job.name for job in answer.jobs]

    assert await names(states=["JOB_STATE_RUNNING"]) == ["jobs/a"]
    assert await names(states=["JOB_STATE_UNSPECIFIED"]) == []
    assert await names(methods=["METHOD_GGUF"]) == ["jobs/b", "jobs/a"]
    assert await names(methods=["METHOD_BITSANDBYTES_4BIT"]) == []
    assert await names(labels={"team": "a"}) == ["jobs/a"]
    assert await names(created_until=Timestamp(seconds=1)) == []
    assert await names(created_from=Timestamp(seconds=1), created_until=Timestamp(seconds=2)) != []


async def test_watching_past_the_end_names_the_last_sequence(job_stub, jobs):
    jobs.add("jobs/1", last_sequence=7)

    async def watch(name: str, after: int):
        raise QuantdError(
            reason="SEQUENCE_OUT_OF_RANGE", kind="out_of_range", message="got 9, the last is 7"
        )
        yield

    jobs.watch = watch
    refusal = await refused(job_stub.WatchJob(v1.WatchJobRequest(name="jobs/1", after_sequence=9)))
    assert refusal.code is grpc.StatusCode.OUT_OF_RANGE
    assert refusal.info.metadata["last_sequence"] == "7"


async def test_a_client_that_leaves_ends_the_watch_and_not_the_job(tmp_path):
    jobs = ScriptedJobs(endless=True)
    job = jobs.add("jobs/1")
    async with running(tmp_path, jobs=jobs) as server:
        call = v1.JobServiceStub(server.channel).WatchJob(v1.WatchJobRequest(name="jobs/1"))
        await call.read()
        call.cancel()
        for _ in range(100):
            if not jobs.open_watches:
                break
            await asyncio.sleep(0.02)
        assert jobs.open_watches == 0
        assert jobs.get("jobs/1") == job
        assert not server.events("incident")


async def test_a_slow_reader_holds_the_producer_back(tmp_path, monkeypatch):
    jobs = ScriptedJobs(count=100_000)
    jobs.add("jobs/1", labels={str(i): "x" * 200 for i in range(60)})
    async with running(tmp_path, jobs=jobs) as server:
        call = v1.JobServiceStub(server.channel).WatchJob(v1.WatchJobRequest(name="jobs/1"))
        await call.read()
        await asyncio.sleep(0.5)
        produced = jobs.produced
        await asyncio.sleep(0.5)
        assert jobs.produced == produced < 5000
        call.cancel()
