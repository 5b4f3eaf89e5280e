"""Metrics, as Prometheus sees those of a real server with real jobs."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests import tiny_models
from tests.api.scraping import METRICS, Scrape, url_of
from tests.api.server_process import COMMAND, environment, server_process

from quantd import v1
from quantd_server.api.log import Log
from quantd_server.api.metrics_endpoint import MAX_CONNECTIONS, MetricsEndpoint, parse

GGUF, BNB = "gguf", "bitsandbytes_4bit"
HANDLED = "grpc_server_handled_total"
RESIDENT = "quantd_worker_resident_memory_bytes"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("metrics")
    tiny_models.write(folder / "small")
    tiny_models.write_slow(folder / "slow")
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with server_process(folder, *METRICS, "--state", str(folder / "state")) as server:
        yield server


def spec(folder: Path, output: str, *, slow: bool = False) -> v1.QuantizationSpec:
    method = (
        v1.MethodConfig(gguf=v1.GgufConfig(file_type="GGUF_FILE_TYPE_IQ4_XS"))
        if slow
        else v1.MethodConfig(bitsandbytes_4bit=v1.Bitsandbytes4BitConfig())
    )
    return v1.QuantizationSpec(
        source_uri=str(folder / ("slow" if slow else "small")),
        output_uri=str(folder / (f"{output}.gguf" if slow else output)),
        method=method,
    )


def events_of(server, asked: v1.QuantizationSpec):
    with grpc.insecure_channel(server.address) as channel:
        stub = v1.QuantizationServiceStub(channel)
        for answer in stub.Quantize(v1.QuantizeRequest(spec=asked), timeout=120):
            yield answer.event


def settled(url: str, name: str, value: float, **labels: str) -> Scrape:
    """A scrape in which a metric has a value; an ended call is counted just after its answer."""
    for _ in range(250):
        scrape = Scrape(url)
        if scrape.all(name, **labels) and scrape.value(name, **labels) == value:
            return scrape
        time.sleep(0.02)
    raise AssertionError(f"{name} {labels} is not {value}: {scrape.all(name)}")


def test_calls_by_method_and_code(server):
    service = "quantd.v1.JobService"
    with grpc.insecure_channel(server.address) as channel:
        jobs = v1.JobServiceStub(channel)
        for _ in range(3):
            with pytest.raises(grpc.RpcError):
                jobs.GetJob(v1.GetJobRequest(name="jobs/none"), timeout=20)
        jobs.ListJobs(v1.ListJobsRequest(), timeout=20)
        for name in ("/made.up/Method", f"/{service}/Forged", "/a/" + "b" * 2000):
            with pytest.raises(grpc.RpcError):
                channel.unary_unary(name)(b"", timeout=20)
    labels = {"grpc_service": service, "grpc_method": "GetJob"}
    scrape = settled(url_of(server), HANDLED, 3, **labels, grpc_code="NOT_FOUND")
    assert scrape.value(HANDLED, grpc_method="ListJobs", grpc_code="OK") == 1
    assert scrape.value("grpc_server_handling_seconds_count", **labels) == 3
    assert 0 < scrape.value("grpc_server_handling_seconds_sum", **labels) < 20
    scrape = settled(url_of(server), HANDLED, 3, grpc_method="unknown")
    assert scrape.value(HANDLED, grpc_service="unknown", grpc_code="UNIMPLEMENTED") == 3
    assert "made.up" not in scrape.text
    assert "Forged" not in scrape.text


def test_calls_that_go_on(server):
    name, labels = "grpc_server_in_flight", {"grpc_service": "grpc.health.v1.Health"}
    with grpc.insecure_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watches = [health.Watch(health_pb2.HealthCheckRequest(), timeout=60) for _ in range(2)]
        for watch in watches:
            next(watch)
        settled(url_of(server), name, 2, **labels, grpc_method="Watch")
        watches[0].cancel()
        settled(url_of(server), name, 1, **labels, grpc_method="Watch")
    settled(url_of(server), HANDLED, 2, **labels, grpc_code="CANCELLED")


def test_a_job_from_the_queue_to_its_end(server, folder):
    url = url_of(server)
    events = events_of(server, spec(folder, "running", slow=True))
    first = next(events)
    waiting = [events_of(server, spec(folder, f"waiting{n}")) for n in range(2)]
    for stream in waiting:
        next(stream)
    while next(events).WhichOneof("event") != "tensor":
        pass
    scrape = Scrape(url)
    assert scrape.value("quantd_queue_depth") == 2
    assert scrape.value("quantd_queue_limit") == 64
    states = {labels["state"]: value for labels, value in scrape.all("quantd_jobs")}
    assert states["QUEUED"] == 2
    assert states["RUNNING"] == 1
    assert set(states) == {name.removeprefix("JOB_STATE_") for name in v1.JobState.keys()[1:]}
    ((labels, resident),) = scrape.all(RESIDENT)
    assert labels == {"job_name": first.snapshot.name, "method": GGUF}
    pid = server.events("job.started")[-1]["worker_pid"]
    status = Path(f"/proc/{pid}/status").read_text()
    actual = int(status.partition("VmRSS:")[2].split()[0]) * 1024
    assert actual / 3 < resident < actual * 3
    assert 0 <= scrape.value("quantd_job_progress_ratio") <= 1

    written = {GGUF: 0, BNB: 0}
    last = {}
    for method, stream in ((GGUF, events), *((BNB, stream) for stream in waiting)):
        for event in stream:
            if event.HasField("tensor"):
                written[method] += event.tensor.size_bytes
            last[method] = event.snapshot
    # The first tensor's event was taken above.
    scrape = Scrape(url)
    assert scrape.value("quantd_job_read_bytes_total", method=GGUF) == (
        last[GGUF].progress.bytes_total
    )
    assert scrape.value("quantd_job_read_bytes_total", method=BNB) == (
        2 * last[BNB].progress.bytes_total
    )
    assert scrape.value("quantd_job_written_bytes_total", method=BNB) == written[BNB]
    assert scrape.value("quantd_job_written_bytes_total", method=GGUF) > written[GGUF]
    ended = {"state": "SUCCEEDED"}
    assert scrape.value("quantd_jobs_ended_total", method=BNB, **ended) == 2
    assert scrape.value("quantd_job_seconds_count", method=BNB, **ended) == 2
    assert scrape.value("quantd_job_seconds_bucket", method=BNB, le="+Inf") == 2
    job = last[GGUF]
    seconds = (job.end_time.ToNanoseconds() - job.start_time.ToNanoseconds()) / 1e9
    assert scrape.value("quantd_job_seconds_sum", method=GGUF) == pytest.approx(seconds, abs=1e-3)
    # What names a job goes with it.
    assert scrape.all(RESIDENT) == []
    assert "jobs/" not in scrape.text


def test_what_a_second_worker_does_again_counts_once(server, folder):
    before = Scrape(url_of(server)).value("quantd_job_read_bytes_total", method=GGUF)
    events = events_of(server, spec(folder, "killed", slow=True))
    tensors = 0
    for event in events:
        tensors += event.HasField("tensor")
        if tensors == 3:
            break
    os.kill(server.events("job.started")[-1]["worker_pid"], signal.SIGKILL)
    job = [event.snapshot for event in events if event.HasField("snapshot")][-1]
    assert v1.JobState.Name(job.state) == "JOB_STATE_SUCCEEDED"
    assert "JOB_RETRIED" in [finding.reason for finding in job.findings]
    after = Scrape(url_of(server)).value("quantd_job_read_bytes_total", method=GGUF)
    assert after - before == job.progress.bytes_total


# -- the port ------------------------------------------------------------------------------------


def exchange(url: str, request: bytes) -> bytes:
    """What comes back for bytes, until the other side closes."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                answer += piece
    return answer


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", b"200 OK"),
        (b"GET /metrics?name=a HTTP/1.0\r\n\r\n", b"200 OK"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"GET /metrics/../jobs HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", b"405 Method Not Allowed"),
        (b"PRI * HTTP/2.0\r\n\r\n", b"400 Bad Request"),
        (b"GET /metrics HTTP/1.1\r\nno colon\r\n\r\n", b"400 Bad Request"),
        (b"\x16\x03\x01\r\n\r\n", b"400 Bad Request"),
        (b"GET /metrics HTTP/1.1\r\nA: " + b"a" * 20000, b"431 Request Header Fields Too Large"),
        (b"GET /metrics HTTP/1.1\r\n", None),
    ],
)
def test_requests(server, request_, status):
    if status is None:  # a client that goes away in the middle
        address = urlsplit(url_of(server))
        with socket.create_connection((address.hostname, address.port)) as connection:
            connection.sendall(request_)
    else:
        assert exchange(url_of(server), request_).startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert Scrape(url_of(server)).content_type.startswith("text/plain")
    assert not server.events("library")


def test_a_head_has_no_content(server):
    answer = exchange(url_of(server), b"HEAD /metrics HTTP/1.1\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n")
    assert b"Content-Type: text/plain" in answer


def test_open_metrics_for_who_asks(server):
    accept = b"Accept: application/openmetrics-text; version=1.0.0\r\n"
    answer = exchange(url_of(server), b"GET /metrics HTTP/1.1\r\n" + accept + b"\r\n")
    assert b"Content-Type: application/openmetrics-text" in answer
    assert answer.endswith(b"# EOF\n")


def test_clients_that_say_nothing_hold_up_nobody(server):
    address = urlsplit(url_of(server))
    with contextlib.ExitStack() as silent:
        for _ in range(MAX_CONNECTIONS):
            silent.enter_context(socket.create_connection((address.hostname, address.port)))
        with grpc.insecure_channel(server.address) as channel:
            v1.JobServiceStub(channel).ListJobs(v1.ListJobsRequest(), timeout=20)
        assert exchange(url_of(server), b"") == b""  # one too many
    assert Scrape(url_of(server)).all("quantd_jobs")


async def test_a_client_that_says_nothing_is_cut_off(monkeypatch):
    monkeypatch.setattr("quantd_server.api.metrics_endpoint.PATIENCE", 0.05)
    endpoint = MetricsEndpoint(lambda accept: ("text/plain", b""), Log())
    host, _, port = (await endpoint.start("127.0.0.1:0")).rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    await endpoint.close()


async def test_a_fault_of_ours_is_an_answer_and_a_line_of_the_log():
    def render(accept: str):
        raise ValueError("secret")

    stream = io.StringIO()
    endpoint = MetricsEndpoint(render, Log(stream=stream))
    host, _, port = (await endpoint.start("127.0.0.1:0")).rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await endpoint.close()
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in answer
    assert "ValueError: secret" in json.loads(stream.getvalue())["trace"]


def test_the_head_of_a_request():
    request = parse(b"GET /a?b HTTP/1.1\r\nACCEPT:  text/plain \r\n\r\n")
    assert (request.method, request.path, request.accept) == ("GET", "/a", "text/plain")


# -- the process ---------------------------------------------------------------------------------


def refused(folder: Path, *options: str) -> str:
    result = subprocess.run(
        [*COMMAND, "--listen", "127.0.0.1:0", *options],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        cwd=folder,
        check=False,
    )
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    return result.stderr


def test_a_port_that_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        said = refused(tmp_path, "--metrics-listen", address)
    assert said.startswith(f"quantd serve: cannot listen on {address}: ")
    assert said.endswith("choose another with --metrics-listen\n")


@pytest.mark.parametrize("address", ["9464", "unix:/tmp/metrics", "host:port", "127.0.0.1:70000"])
def test_an_address_that_is_none(tmp_path, address):
    assert "cannot listen on" in refused(tmp_path, "--metrics-listen", address)


def test_an_exposed_port_is_said(tmp_path):
    with server_process(tmp_path, "--metrics-listen", "0.0.0.0:0") as server:
        (line,) = server.events("metrics.exposed")
        assert line["level"] == "warning"
        assert server.stop() == 0
        assert not server.events("library")


@pytest.mark.parametrize(
    ("options", "endpoint", "found"),
    [
        ((), "", []),
        (METRICS, "", ["prometheus_client"]),
        ((), "http://127.0.0.1:1", ["opentelemetry"]),
    ],
)
def test_what_is_imported(tmp_path, monkeypatch, options, endpoint, found):
    if endpoint:
        pytest.importorskip("opentelemetry.sdk")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    program = (
        "import sys, threading, time, os, signal, pathlib\n"
        "def look():\n"
        f"    while not pathlib.Path({str(tmp_path / 'ready')!r}).exists(): time.sleep(0.02)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "threading.Thread(target=look, daemon=True).start()\n"
        "from quantd_server.cli import main\n"
        "names = ('torch', 'transformers', 'numba', 'numpy')\n"
        "names += ('prometheus_client', 'opentelemetry')\n"
        "try: main()\n"
        "finally: print('FOUND', [name for name in names if name in sys.modules])\n"
    )
    result = subprocess.run(
        [
            *(sys.executable, "-c", program, "serve", "--listen", "127.0.0.1:0", *options),
            *("--ready-file", str(tmp_path / "ready")),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        cwd=tmp_path,
        check=True,
    )
    assert f"FOUND {found}" in result.stdout
