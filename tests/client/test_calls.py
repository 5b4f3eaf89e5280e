"""Every method of both services can be called, from both clients."""

from __future__ import annotations

import inspect
import uuid

import pytest
from tests.client.fake_server import JOB, SECOND_PAGE, FakeServer

import quantd
from quantd import v1

SERVICES = ("QuantizationService", "JobService")
METHODS = {
    method.name
    for service in SERVICES
    for method in v1.quantization_service_pb2.DESCRIPTOR.services_by_name.get(
        service, v1.job_service_pb2.DESCRIPTOR.services_by_name.get(service)
    ).methods
}


def test_the_blocking_client_wraps_every_method(server, client):
    method = quantd.gguf("Q4_K_M")
    client.capabilities()
    client.inspect("/models/m")
    client.parse_config({"quant_method": "bitsandbytes"})
    client.plan("/models/m", method)
    list(client.quantize("/models/m", "/models/o", method))
    client.job(JOB)
    list(client.jobs())
    list(client.watch(JOB))
    client.cancel(JOB)
    client.delete(JOB)
    client.wait_until_serving(5)
    assert {name for name, _ in server.calls} == METHODS


async def test_the_async_client_wraps_every_method(server, async_client):
    client, method = async_client, quantd.gguf("Q4_K_M")
    await client.capabilities()
    await client.inspect("/models/m")
    await client.parse_config("{}")
    await client.plan("/models/m", method)
    assert [event async for event in await client.quantize("/models/m", "/models/o", method)]
    await client.job(JOB)
    assert [job.name async for job in client.jobs()] == ["jobs/newer", "jobs/older"]
    assert [event async for event in await client.watch(JOB)]
    await client.cancel(JOB)
    await client.delete(JOB)
    await client.wait_until_serving(5)
    assert {name for name, _ in server.calls} == METHODS


def test_both_clients_have_the_same_surface():
    def surface(kind):
        return {
            name: [
                (parameter.name, parameter.kind, parameter.default)
                for parameter in inspect.signature(member).parameters.values()
            ]
            for name, member in inspect.getmembers(kind, inspect.isfunction)
            if name == "__init__" or not name.startswith("_")
        }

    assert surface(quantd.Client) == surface(quantd.AsyncClient)
    assert surface(quantd.JobStream) == surface(quantd.AsyncJobStream)


def test_every_part_of_the_spec_reaches_the_server(server, client):
    client.quantize(
        "/models/m",
        "/models/o",
        quantd.bitsandbytes_8bit(),
        request_id="7f3c1b52-8f62-4f4c-9d3e-0c8b6f1f2a11",
        labels={"team": "a"},
        max_shard_size="2GB",
        device="cpu",
        serve_targets=["llama.cpp", "vllm:8.6"],
        allow_non_finite=True,
        calibration=v1.CalibrationConfig(num_samples=4),
    )
    (request,) = server.requests("Quantize")
    assert request == v1.QuantizeRequest(
        spec=v1.QuantizationSpec(
            source_uri="/models/m",
            output_uri="/models/o",
            method=v1.MethodConfig(bitsandbytes_8bit=v1.Bitsandbytes8BitConfig()),
            calibration=v1.CalibrationConfig(num_samples=4),
            max_shard_size=2 * 10**9,
            device="DEVICE_KIND_CPU",
            serve_targets=[
                v1.ServeTarget(engine="ENGINE_LLAMA_CPP"),
                v1.ServeTarget(engine="ENGINE_VLLM", compute_capability="8.6"),
            ],
            allow_non_finite=True,
        ),
        request_id="7f3c1b52-8f62-4f4c-9d3e-0c8b6f1f2a11",
        labels={"team": "a"},
    )


def test_a_request_id_is_a_new_uuid_each_time(server, client):
    for _ in range(2):
        client.quantize("/models/m", "/models/o", quantd.gguf())
    first, second = (uuid.UUID(request.request_id) for request in server.requests("Quantize"))
    assert first != second


def test_inspect_gets_all_pages_of_tensors(server, client):
    server.tensor_count = 4500
    names = [tensor.name for tensor in client.inspect("/m", tensors=True).tensors]
    assert names == [f"tensor.{index}" for index in range(4500)]
    assert len(client.inspect("/m").tensors) == 0


async def test_plan_gets_all_pages_of_tensors(server, async_client):
    server.tensor_count = 4500
    answer = await async_client.plan("/m", quantd.gguf())
    assert [tensor.target_name for tensor in answer.tensors] == [
        f"tensor.{index}" for index in range(4500)
    ]
    assert answer.next_page_token == ""


def test_jobs_are_filtered_and_come_page_by_page(server, client):
    jobs = client.jobs(states=["running", "QUEUED"], methods=["gguf"], labels={"team": "a"})
    assert next(jobs).name == "jobs/newer"
    assert len(server.requests("ListJobs")) == 1
    assert next(jobs).name == "jobs/older"
    assert server.requests("ListJobs")[1] == v1.ListJobsRequest(
        page_token=SECOND_PAGE,
        states=["JOB_STATE_RUNNING", "JOB_STATE_QUEUED"],
        methods=["METHOD_GGUF"],
        labels={"team": "a"},
    )
    with pytest.raises(ValueError, match="states: 'done' is not one of QUEUED"):
        next(client.jobs(states=["done"]))


def test_requests_are_sent_as_they_are(server, client):
    page = v1.ListJobsRequest(page_size=1)
    page.created_from.FromSeconds(1)
    assert client.call(page).next_page_token == SECOND_PAGE
    assert server.requests("ListJobs") == [page]
    assert client.call(v1.GetJobRequest(name=JOB)).job.name == JOB
    with pytest.raises(TypeError, match="got WatchJobRequest, expected one of GetCapab"):
        client.call(v1.WatchJobRequest(name=JOB))


async def test_streams_of_requests_as_they_are(server, async_client):
    request = v1.QuantizeRequest(labels={"team": "a"})
    request.spec.source_uri = "/models/m"
    events = [event async for event in await async_client.follow(request)]
    (sent,) = server.requests("Quantize")
    assert sent.labels == {"team": "a"} and uuid.UUID(sent.request_id)
    assert not request.request_id
    watch = v1.WatchJobRequest(name=JOB, after_sequence=2)
    assert [event async for event in await async_client.follow(watch)] == events[2:]


def test_a_method_has_to_be_a_message(client):
    with pytest.raises(TypeError, match=r"method: got str, expected a MethodConfig"):
        client.plan("/m", "gguf")


def test_a_server_that_is_not_there_is_unavailable(tmp_path):
    with quantd.Client(f"unix:{tmp_path}/none") as client:
        with pytest.raises(quantd.UnavailableError):
            client.capabilities()
        with pytest.raises(quantd.UnavailableError, match="was not serving within"):
            client.wait_until_serving(0.1)


def test_waiting_until_the_server_serves(tmp_path_factory):
    import threading

    fake = FakeServer(tmp_path_factory.mktemp("s"))
    threading.Timer(0.1, fake.start).start()
    with quantd.Client(fake.address) as client:
        client.wait_until_serving(10)
    fake.stop()
