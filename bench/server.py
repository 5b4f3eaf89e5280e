"""Table: how fast the server starts, how small it is, and how it answers while a job runs."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
from bench import host, synthetic
from bench.processes import BenchError, Server, children, command_line, memory, server
from bench.table import MEGABYTE, print_table
from grpc_health.v1 import health_pb2, health_pb2_grpc

import quantd
from quantd import v1

STARTS = 7
CALLS = 2000
PAUSE = 0.002
"""Seconds between two calls: callers that do nothing else would be the load themselves."""
REPLAYS = 20
SETTLING = 1.0
"""Seconds before an idle server is looked at."""
TORCH_TIMEOUT = 60.0
"""Seconds until the server has to know what torch can do."""

NOTES = """\
start: from making the process to the health service's answer SERVING. Memory: of the server's
process and, apart, of the process that reads headers for it. Torch is asked at the start where
there is a GPU, else when somebody first asks for capabilities. Calls: one after the other over a
unix socket, the Python client's own time included; the job quantizes the synthetic model to Q4_K_M
on all cores. Events: a finished job's log, read again from its beginning by one watcher."""

Row = tuple[str, str]


def main(model: Path, cache: Path) -> None:
    """Measures and prints.

    Args:
        model: A checkpoint of SmolLM2.
        cache: Folder for the synthetic model and for outputs, which are removed again.
    """
    source = cache / "llama-1b"
    synthetic.ensure(source, model)
    outputs = cache / "outputs"
    shutil.rmtree(outputs, ignore_errors=True)
    outputs.mkdir()
    host.read_all(source)
    try:
        rows = [start_row(model, outputs)]
        with server(reads=cache, writes=outputs) as running:
            rows.append(torch_row(running))
            rows += memory_rows(running)
            rows += latency_rows("idle", running, lambda: range(CALLS))
            with quantd.Client(running.address) as client:
                target = outputs / "model.gguf"
                job = client.quantize(source, target, quantd.gguf("Q4_K_M"))
                rows += latency_rows("while a job runs", running, lambda: until_end(client, job))
                job.result()
                rows.append(memory_row("resident memory after it, server", running.pid))
                rows.append(events_row(client, job.name))
    finally:
        shutil.rmtree(outputs, ignore_errors=True)
    print_table("The server", ["", "measured"], rows, justify="left", notes=NOTES)


def start_row(reads: Path, writes: Path) -> Row:
    """Seconds from a process to SERVING."""
    took = []
    for _ in range(STARTS):
        with (
            server(reads=reads, writes=writes) as running,
            grpc.insecure_channel(running.address) as channel,
        ):
            health: Any = health_pb2_grpc.HealthStub(channel)
            answer = health.Check(health_pb2.HealthCheckRequest())
            if answer.status != health_pb2.HealthCheckResponse.SERVING:
                raise BenchError(f"the server said it was ready, but its health is {answer.status}")
            took.append(time.perf_counter() - running.started)
    middle, worst = statistics.median(took), max(took)
    return "start to SERVING", f"{middle:.2f} s, at most {worst:.2f} s in {STARTS} starts"


def torch_row(running: Server) -> Row:
    """Seconds from a process to knowing what torch can do; calls meanwhile wait for nothing."""
    pending = v1.TorchState.TORCH_STATE_PENDING
    with quantd.Client(running.address) as client:
        while client.capabilities().torch.state == pending:
            if time.perf_counter() - running.started > TORCH_TIMEOUT:
                raise BenchError(f"torch was not asked within {TORCH_TIMEOUT:g} s")
            time.sleep(0.05)
    return "start to torch's answer", f"{time.perf_counter() - running.started:.1f} s"


def memory_rows(running: Server) -> Iterator[Row]:
    """Memory of a server that has answered and now has nothing to do."""
    with quantd.Client(running.address) as client:
        client.capabilities()
    time.sleep(SETTLING)
    yield memory_row("resident memory when idle, server", running.pid)
    for child in children(running.pid):
        if "planner_process" in command_line(child):
            yield memory_row("resident memory when idle, header reader", child)


def memory_row(what: str, pid: int) -> Row:
    return what, f"{memory(pid, 'VmRSS') / MEGABYTE:.0f} MB"


def until_end(client: quantd.Client, job: quantd.JobStream) -> Iterator[int]:
    """Counts, until the job is over."""
    number = 0
    while number % 100 or not client.job(job.name).HasField("end_time"):
        yield number
        number += 1


def latency_rows(
    when: str, running: Server, repeat: Callable[[], Iterator[int] | range]
) -> Iterator[Row]:
    """Milliseconds of the two calls that others poll, taking turns."""
    with grpc.insecure_channel(running.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        service = v1.QuantizationServiceStub(channel)
        calls: dict[str, Callable[[], object]] = {
            "health": lambda: health.Check(health_pb2.HealthCheckRequest()),
            "GetCapabilities": lambda: service.GetCapabilities(v1.GetCapabilitiesRequest()),
        }
        took: dict[str, list[float]] = {name: [] for name in calls}
        for _ in repeat():
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                took[name].append(time.perf_counter() - start)
                time.sleep(PAUSE)
    for name, times in took.items():
        parts = [f"p50 {percentile(times, 50):.2f} ms", f"p99 {percentile(times, 99):.2f} ms"]
        parts += [f"at most {1e3 * max(times):.1f} ms", f"{len(times)} calls"]
        yield f"{name}, {when}", ", ".join(parts)


def percentile(seconds: list[float], percent: int) -> float:
    """A percentile in milliseconds."""
    return 1e3 * statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1]


def events_row(client: quantd.Client, name: str) -> Row:
    """Events a second to one watcher."""
    start = time.perf_counter()
    count = sum(1 for _ in range(REPLAYS) for _ in client.watch(name))
    rate = count / (time.perf_counter() - start)
    return "events to a watcher", f"{rate:,.0f} events/s, {count // REPLAYS} events in the log"
