"""The log of a server: which lines tell of a job, and whose call it goes back to."""

from __future__ import annotations

import os
import signal
import uuid
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import tiny_models
from tests.api.durable_servers import kill, serving
from tests.api.server_process import ServerProcess

from quantd import v1
from quantd_server.api.trace_context import trace_context

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
METADATA = (("x-request-id", "call-1"), ("traceparent", f"00-{TRACE}-{SPAN}-01"))


@pytest.fixture
def asked(tmp_path) -> v1.QuantizeRequest:
    tiny_models.write_slow(tmp_path / "slow")
    spec = v1.QuantizationSpec(
        source_uri=str(tmp_path / "slow"),
        output_uri=str(tmp_path / "output.gguf"),
        method=v1.MethodConfig(gguf=v1.GgufConfig(file_type="GGUF_FILE_TYPE_IQ4_XS")),
    )
    return v1.QuantizeRequest(spec=spec, request_id=str(uuid.uuid4()))


def lines_of(server: ServerProcess, job: str) -> list[dict]:
    names = ("call", "audit", "job.queued", "job.started", "job.requeued", "job.ended")
    lines = [line for name in names for line in server.events(name)]
    return [line for line in lines if line.get("job") == job]


def test_every_line_about_a_job_names_it_and_the_call_that_made_it(tmp_path: Path, asked):
    with serving(tmp_path) as server:
        with grpc.insecure_channel(server.address) as channel:
            stream = v1.QuantizationServiceStub(channel).Quantize(
                asked, timeout=120, metadata=METADATA
            )
            name = next(stream).event.snapshot.name
            while next(stream).event.WhichOneof("event") != "tensor":
                pass
            os.kill(server.events("job.started")[-1]["worker_pid"], signal.SIGKILL)
            for awaited in ("warning", "tensor"):  # that it is begun again; then that it is
                while next(stream).event.WhichOneof("event") != awaited:
                    pass
            stream.cancel()
            v1.JobServiceStub(channel).GetJob(v1.GetJobRequest(name=name), timeout=20)
        kill(server)
        lines = lines_of(server, name)
        events = [line["event"] for line in lines]
        assert events.count("job.started") == 2
        assert {"job.queued", "job.requeued", "call", "audit"} <= set(events)
        assert [line["attempt"] for line in lines if line["event"] == "job.started"] == [1, 2]
        for line in lines:
            if line.get("method", "").endswith("GetJob"):  # a call of its own
                assert line["request_id"] != "call-1"
                assert "trace_id" not in line
            else:
                assert (line["request_id"], line["trace_id"]) == ("call-1", TRACE), line
    with serving(tmp_path) as server:  # another process, which has it from the store
        with grpc.insecure_channel(server.address) as channel:
            request = v1.WatchJobRequest(name=name)
            for _ in v1.JobServiceStub(channel).WatchJob(request, timeout=120):
                pass
        lines = [line for line in lines_of(server, name) if line["event"].startswith("job.")]
        assert [line["event"] for line in lines][-1] == "job.ended"
        assert {(line["request_id"], line["trace_id"]) for line in lines} == {("call-1", TRACE)}


# -- the header ----------------------------------------------------------------------------------


def context_of(value: str):
    return trace_context([("traceparent", value), ("tracestate", "a=b")])


@pytest.mark.parametrize(
    "value",
    [
        "",
        f"00-{TRACE}-{SPAN}",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"0-{TRACE}-{SPAN}-01",
    ],
)
def test_no_trace(value):
    assert context_of(value) is None


def test_a_trace_and_what_a_later_version_may_add():
    for value in (f"00-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-what-is-new"):
        found = context_of(value)
        assert (found.trace_id, found.span_id, found.state) == (TRACE, SPAN, "a=b")
        assert found.traceparent == f"00-{TRACE}-{SPAN}-01"
    long = [("traceparent", found.traceparent), ("tracestate", "a" * 600)]
    assert trace_context(long).state == ""


@given(st.text(alphabet="0123456789abcdefg-\n", max_size=300))
def test_whatever_a_client_sends(value):
    found = context_of(value)
    assert found is None or len(found.traceparent) == 55
