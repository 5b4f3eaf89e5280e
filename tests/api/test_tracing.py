"""Traces, as a collector receives those of a real server with real jobs."""

from __future__ import annotations

import subprocess
import time
import uuid
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from tests import tiny_models
from tests.api.durable_servers import kill, serving
from tests.api.server_process import COMMAND, environment, server_process

from quantd import v1
from quantd_server.api.tracing import is_asked_for
from quantd_server.errors import QuantdError

pytest.importorskip("opentelemetry.sdk")
from opentelemetry.proto.collector.trace.v1 import (
    trace_service_pb2,
    trace_service_pb2_grpc,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = (("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "vendor=1"))
QUANTIZE = "quantd.v1.QuantizationService/Quantize"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans by OTLP."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resource: dict[str, str] = {}
        self.address = ""

    def Export(self, request, context):  # noqa: N802
        for of_resource in request.resource_spans:
            self.resource = {
                entry.key: entry.value.string_value for entry in of_resource.resource.attributes
            }
            for of_scope in of_resource.scope_spans:
                self.spans += of_scope.spans
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, name: str) -> Span:
        (span,) = (span for span in self.spans if span.name == name)
        return span


@pytest.fixture
def collector(monkeypatch):
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{collector.address}")
    yield collector
    server.stop(None).wait()


def attributes(span: Span) -> dict[str, object]:
    return {
        entry.key: getattr(entry.value, entry.value.WhichOneof("value"))
        for entry in span.attributes
    }


def request(folder: Path, *, slow: bool = False) -> v1.QuantizeRequest:
    if slow:
        tiny_models.write_slow(folder / "source")
    else:
        tiny_models.write(folder / "source")
    method = v1.MethodConfig(gguf=v1.GgufConfig(file_type="GGUF_FILE_TYPE_IQ4_XS"))
    if not slow:
        method = v1.MethodConfig(bitsandbytes_8bit=v1.Bitsandbytes8BitConfig())
    spec = v1.QuantizationSpec(
        source_uri=str(folder / "source"),
        output_uri=str(folder / ("output.gguf" if slow else "output")),
        method=method,
    )
    return v1.QuantizeRequest(spec=spec, request_id=str(uuid.uuid4()))


def test_a_call_and_its_job_are_one_trace_with_the_caller(tmp_path, collector):
    asked = request(tmp_path)
    with server_process(tmp_path) as server:
        with grpc.insecure_channel(server.address) as channel:
            stream = v1.QuantizationServiceStub(channel).Quantize(
                asked, timeout=120, metadata=PARENT
            )
            *_, last = stream
            job = last.event.snapshot
            with pytest.raises(grpc.RpcError):
                channel.unary_unary("/made.up/Method")(b"", timeout=20)
        assert server.stop() == 0
        lines = [*server.events("job.ended"), *server.events("job.queued")]
        assert {line["trace_id"] for line in lines} == {TRACE}
        (line,) = (line for line in server.events("call") if line["method"] == f"/{QUANTIZE}")
        assert not server.events("library")
    assert collector.resource["service.name"] == "quantd"
    call, work, other = (
        collector.named(name) for name in (QUANTIZE, "quantize bitsandbytes_8bit", "grpc")
    )
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE, SPAN)
    assert call.trace_state == "vendor=1"
    assert call.kind == Span.SPAN_KIND_SERVER
    assert attributes(call) == {
        "rpc.system.name": "grpc",
        "rpc.method": QUANTIZE,
        "rpc.response.status_code": "OK",
        "quantd.request_id": line["request_id"],
        "quantd.job.name": job.name,
    }
    assert (work.trace_id.hex(), work.parent_span_id) == (TRACE, call.span_id)
    assert attributes(work)["quantd.job.name"] == job.name
    assert attributes(work)["quantd.job.state"] == "SUCCEEDED"
    assert abs(work.start_time_unix_nano - job.create_time.ToNanoseconds()) < 1e6
    assert abs(work.end_time_unix_nano - job.end_time.ToNanoseconds()) < 1e6
    assert [event.name for event in work.events] == ["started"]
    # Nobody's trace: one of its own; and what a client makes up is no name.
    assert not other.parent_span_id
    assert other.trace_id.hex() != TRACE
    assert attributes(other)["rpc.method"] == "_OTHER"
    assert other.status.code == Status.STATUS_CODE_ERROR


def test_the_span_of_a_job_whose_server_was_killed(tmp_path, collector, monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    asked = request(tmp_path, slow=True)
    with serving(tmp_path) as server:
        with grpc.insecure_channel(server.address) as channel:
            stream = v1.QuantizationServiceStub(channel).Quantize(
                asked, timeout=120, metadata=PARENT
            )
            name = next(stream).event.snapshot.name
            while next(stream).event.WhichOneof("event") != "tensor":
                pass
        kill(server)
    with serving(tmp_path) as server:
        with grpc.insecure_channel(server.address) as channel:
            for _ in v1.JobServiceStub(channel).WatchJob(
                v1.WatchJobRequest(name=name), timeout=120
            ):
                pass
        assert server.stop() == 0
    work = collector.named("quantize gguf")
    assert work.trace_id.hex() == TRACE
    assert attributes(work)["quantd.job.attempts"] == 2
    assert collector.resource["service.name"] == "mine"


def test_what_the_caller_does_not_record_is_not_recorded_here(tmp_path, collector):
    with server_process(tmp_path) as server:
        with grpc.insecure_channel(server.address) as channel:
            stub = v1.JobServiceStub(channel)
            metadata = (("traceparent", f"00-{TRACE}-{SPAN}-00"),)
            stub.ListJobs(v1.ListJobsRequest(), timeout=20, metadata=metadata)
        assert server.stop() == 0
        assert server.events("call")[0]["trace_id"] == TRACE
    assert collector.spans == []


def test_a_collector_that_is_not_there_holds_up_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    with server_process(tmp_path) as server:
        with grpc.insecure_channel(server.address) as channel:
            v1.JobServiceStub(channel).ListJobs(v1.ListJobsRequest(), timeout=20)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 20
        assert not server.events("incident")


# -- asking --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "a"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
    ],
)
def test_when_it_is_asked_for(variables, asked):
    assert is_asked_for(variables) is asked


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
        {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json",
        },
    ],
)
def test_what_is_not_there_is_refused(variables):
    with pytest.raises(QuantdError) as caught:
        is_asked_for(variables)
    assert caught.value.reason == "TRACING_NOT_SUPPORTED"


def test_without_the_package_it_is_said_how_to_install_it(tmp_path, monkeypatch):
    hiding = tmp_path / "hiding"
    hiding.mkdir()
    (hiding / "sitecustomize.py").write_text("import sys\nsys.modules['opentelemetry'] = None\n")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    variables = environment()
    variables["PYTHONPATH"] = f"{hiding}:{variables['PYTHONPATH']}"
    result = subprocess.run(
        [*COMMAND, "--listen", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=60,
        env=variables,
        cwd=tmp_path,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr == (
        "quantd serve: OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, and OpenTelemetry is not "
        "installed (TRACING_NOT_INSTALLED); install quantd with its extra: pip install '.[otel]' "
        "in its folder; or unset the variable\n"
    )
