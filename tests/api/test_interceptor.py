"""What surrounds every call: identity, checks, errors that leak nothing, the log."""

from __future__ import annotations

import asyncio
import re

import grpc
import grpc.aio
import pytest
from tests.api.servers import refused, running

from quantd import v1

SECRET = "/srv/secret/model"  # noqa: S105 - a path that must not leak


def unary(server, method, data, **more):
    return server.channel.unary_unary(f"/quantd.v1.{method}")(data, **more)


def varint_field(number: int, value: int) -> bytes:
    """A field that no message of ours has."""
    return varint(number << 3) + varint(value)


def varint(value: int) -> bytes:
    encoded = b""
    while value > 0x7F:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


async def test_an_unhandled_exception_is_internal_and_leaks_nothing(scripted, jobs):
    def fail(name: str):
        raise ValueError(f"cannot open {SECRET}")

    jobs.get = fail
    refusal = await refused(
        v1.JobServiceStub(scripted.channel).GetJob(v1.GetJobRequest(name="jobs/1"))
    )
    assert refusal.code is grpc.StatusCode.INTERNAL
    assert refusal.reason == "INTERNAL"
    assert SECRET not in refusal.message
    assert "ValueError" not in refusal.message
    incident = scripted.events("incident")[0]
    assert incident["incident"] == refusal.info.metadata["incident"]
    assert SECRET in incident["trace"]
    assert (await scripted.logged_call())["code"] == "INTERNAL"


async def test_an_unhandled_exception_in_a_stream_too(scripted, jobs):
    async def fail(name: str, after: int):
        yield v1.JobEvent()  # no domain value: fails in the translator
        raise AssertionError

    jobs.watch = fail
    jobs.add("jobs/1")
    stub = v1.JobServiceStub(scripted.channel)
    refusal = await refused(stub.WatchJob(v1.WatchJobRequest(name="jobs/1")))
    assert refusal.code is grpc.StatusCode.INTERNAL


async def test_bytes_that_are_no_message(scripted):
    for method in ("JobService/GetJob", "JobService/WatchJob", "QuantizationService/Quantize"):
        refusal = await refused(unary(scripted, method, b"\xff\xff\xff"))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.reason == "REQUEST_NOT_DECODABLE"


async def test_a_call_without_a_message(scripted):
    async def nothing():
        return
        yield b""

    for method in ("JobService/GetJob", "JobService/WatchJob"):
        call = scripted.channel.stream_stream(f"/quantd.v1.{method}")(nothing(), timeout=10)
        refusal = await refused(call)
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.reason == "REQUEST_MISSING"


async def test_a_compressed_request_is_limited_by_its_real_size(tmp_path):
    async with running(tmp_path) as server:
        call = server.channel.unary_unary("/quantd.v1.JobService/GetJob")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call(bytes(64 << 20), compression=grpc.Compression.Gzip, timeout=60)
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_string_that_is_no_utf8(scripted):
    refusal = await refused(unary(scripted, "JobService/GetJob", b"\x0a\x02\xff\xfe"))
    assert refusal.reason == "REQUEST_NOT_DECODABLE"


async def test_unknown_fields_are_refused_wherever_they_are(scripted):
    inner = varint_field(77, 1)
    spec = v1.QuantizationSpec(source_uri="/a", method=v1.MethodConfig(gguf=v1.GgufConfig()))
    tail = spec.SerializeToString() + inner
    request = b"\x0a" + bytes([len(tail)]) + tail  # PlanQuantizationRequest.spec
    refusal = await refused(unary(scripted, "QuantizationService/PlanQuantization", request))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == "UNKNOWN_FIELDS"
    assert refusal.fields[0].field == "spec.field 77"
    assert "spec.field 77" in refusal.message

    refusal = await refused(unary(scripted, "JobService/ListJobs", varint_field(2000, 5)))
    assert refusal.fields[0].field == "field 2000"


async def test_unknown_enum_values_are_refused(scripted):
    spec = v1.QuantizationSpec(source_uri="/a", method=v1.MethodConfig(gguf=v1.GgufConfig()))
    spec.device = 99  # type: ignore[assignment]
    stub = v1.QuantizationServiceStub(scripted.channel)
    refusal = await refused(stub.PlanQuantization(v1.PlanQuantizationRequest(spec=spec)))
    assert refusal.reason == "ENUM_DEFINED_ONLY"
    assert refusal.fields[0].field == "spec.device"
    assert "99" in refusal.fields[0].description


async def test_all_broken_rules_are_told_at_once(scripted):
    request = v1.QuantizeRequest(request_id="no uuid", labels={"BAD": "x"})
    refusal = await refused(v1.QuantizationServiceStub(scripted.channel).Quantize(request))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    fields = {violation.field: violation.reason for violation in refusal.fields}
    assert fields == {
        "spec": "REQUIRED",
        "request_id": "STRING_UUID",
        "labels['BAD']": "STRING_PATTERN",
    }
    assert refusal.info.metadata["violation_count"] == "3"


async def test_a_rule_that_stumbles_is_an_invalid_argument(scripted, monkeypatch):
    import protovalidate

    from quantd_server.api import request_checks

    class Stumbling:
        def collect_violations(self, message):
            raise protovalidate.EvaluationError("modulus by zero")

    monkeypatch.setattr(request_checks, "validator", Stumbling())
    refusal = await refused(v1.JobServiceStub(scripted.channel).ListJobs(v1.ListJobsRequest()))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == "RULE_NOT_EVALUABLE"


@pytest.mark.parametrize("method", ["/quantd.v1.JobService/Nothing", "/other.Service/Method"])
async def test_an_unknown_method_is_unimplemented_with_details(scripted, method):
    refusal = await refused(scripted.channel.unary_unary(method)(b"anything"))
    assert refusal.code is grpc.StatusCode.UNIMPLEMENTED
    assert refusal.reason == "METHOD_NOT_FOUND"


async def test_a_request_that_is_too_large(tmp_path):
    async with running(tmp_path, max_request_bytes=1 << 16) as server:
        request = v1.ParseConfigRequest(config_json="x" * (1 << 17))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await v1.QuantizationServiceStub(server.channel).ParseConfig(request)
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        response = await v1.QuantizationServiceStub(server.channel).GetCapabilities(
            v1.GetCapabilitiesRequest()
        )
        assert response.limits.max_request_bytes == 1 << 16


async def test_the_request_id_comes_back_and_is_logged(scripted):
    stub = v1.JobServiceStub(scripted.channel)
    call = stub.ListJobs(v1.ListJobsRequest(), metadata=(("x-request-id", "mine-1"),))
    await call
    assert dict(await call.trailing_metadata())["x-request-id"] == "mine-1"
    line = await scripted.logged_call()
    assert line["request_id"] == "mine-1"
    assert line["method"] == "/quantd.v1.JobService/ListJobs"
    assert line["code"] == "OK"
    assert line["ms"] > 0
    assert line["peer"].startswith("ipv4:127.0.0.1:")


async def test_an_insane_request_id_is_replaced(scripted):
    stub = v1.JobServiceStub(scripted.channel)
    call = stub.ListJobs(v1.ListJobsRequest(), metadata=(("x-request-id", "a b" * 100),))
    await call
    assert re.fullmatch(r"[0-9a-f-]{36}", dict(await call.trailing_metadata())["x-request-id"])


async def test_the_request_id_comes_back_with_an_error(scripted):
    stub = v1.JobServiceStub(scripted.channel)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.GetJob(v1.GetJobRequest(name="jobs/1"), metadata=(("x-request-id", "e-1"),))
    assert dict(error.value.trailing_metadata())["x-request-id"] == "e-1"
    line = await scripted.logged_call()
    assert (line["code"], line["job"]) == ("NOT_FOUND", "jobs/1")


async def test_a_deadline_is_a_deadline_and_no_fault(scripted, jobs):
    async def sleep(name: str, reason: str):
        await asyncio.sleep(30)

    jobs.cancel = sleep
    jobs.add("jobs/1")
    stub = v1.JobServiceStub(scripted.channel)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.CancelJob(v1.CancelJobRequest(name="jobs/1"), timeout=0.1)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (await scripted.logged_call())["code"] in ("DEADLINE_EXCEEDED", "CANCELLED")
    assert not scripted.events("incident")
