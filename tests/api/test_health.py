"""Health: per service, unknown services, and what watchers see of a stop."""

from __future__ import annotations

import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.api.servers import ScriptedJobs, ScriptedPlanner, running

from quantd_server.api import lifecycle

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("service", ["", "quantd.v1.QuantizationService", "quantd.v1.JobService"])
async def test_every_service_is_serving(scripted, service):
    stub = health_pb2_grpc.HealthStub(scripted.channel)
    response = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    assert response.status == SERVING


async def test_the_services_are_listed_with_their_health(scripted):
    stub = health_pb2_grpc.HealthStub(scripted.channel)
    answer = await stub.List(health_pb2.HealthListRequest())
    assert {name: item.status for name, item in answer.statuses.items()} == {
        "": SERVING,
        "quantd.v1.QuantizationService": SERVING,
        "quantd.v1.JobService": SERVING,
    }


async def test_an_unknown_service_is_not_found(scripted):
    stub = health_pb2_grpc.HealthStub(scripted.channel)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.Check(health_pb2.HealthCheckRequest(service="quantd.v1.Nothing"))
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_watcher_hears_of_the_stop_and_does_not_hold_it_up(tmp_path):
    async with running(tmp_path, planner=ScriptedPlanner(), jobs=ScriptedJobs()) as server:
        watch = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        start = time.monotonic()
        await lifecycle.stop(server.bound, server.services, 30.0)
        assert time.monotonic() - start < 5
        assert (await watch.read()).status == NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await watch.read()
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
