"""Table: a server with a long queue and many watchers.

The functions are those of `tests/faults/test_load.py`, too, which checks what this prints.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from bench import host
from bench.processes import memory, server
from bench.table import MEGABYTE, print_table
from grpc_health.v1 import health_pb2, health_pb2_grpc

from quantd import v1

SUBMISSIONS = 1000
WATCHERS = 200
AT_ONCE = 16
"""Submissions that are under way at a time."""
CONNECTIONS = 10
HEALTH_PAUSE = 0.01
"""Seconds between two health checks."""
TIMEOUT = 600.0

NOTES = """\
One server with a state folder takes the submissions, 16 at a time, of a checkpoint whose headers
it reads for each; one job at a time runs. Then the watchers come, over 10 connections, each to a
job of its own, and all jobs are cancelled under them. Health: a check every 10 ms from the first
submission to the end of the last watcher. The callers run on the same cores. Memory: resident, of
the server's process. Lost or repeated: events whose number is not one more than that before."""

Row = tuple[str, str]


@dataclass
class LoadResult:
    """What was measured."""

    jobs: list[str] = field(default_factory=list)
    submitting: float = 0.0
    """Seconds for all submissions."""
    ending: float = 0.0
    """Seconds from the first cancellation to the end of the last watcher."""
    health: list[float] = field(default_factory=list)
    """Seconds of each health check."""
    events: int = 0
    """That watchers got."""
    gaps: int = 0
    """Events whose number is not one more than that before."""
    unfinished: int = 0
    """Watchers whose last event was not the end of the job."""
    memory: dict[str, int] = field(default_factory=dict)
    """Bytes of the server's process, by when."""

    def percentile(self, percent: int) -> float:
        """Of the health checks, in milliseconds."""
        return 1e3 * statistics.quantiles(self.health, n=100, method="inclusive")[percent - 1]


def main(model: Path, cache: Path) -> None:
    """Measures and prints.

    Args:
        model: A checkpoint.
        cache: Folder for outputs, which are removed again.
    """
    outputs = cache / "outputs"
    shutil.rmtree(outputs, ignore_errors=True)
    outputs.mkdir(parents=True)
    host.read_all(model)
    options = ("--state", str(outputs / "state"), *queue_options(SUBMISSIONS))
    try:
        with server(reads=model, writes=outputs, options=options) as running:
            result = asyncio.run(
                load(running.address, running.pid, model, outputs, SUBMISSIONS, WATCHERS)
            )
    finally:
        shutil.rmtree(outputs, ignore_errors=True)
    print_table("Load", ["", "measured"], list(rows(result)), justify="left", notes=NOTES)


def queue_options(jobs: int) -> tuple[str, ...]:
    """Options of a server that takes and remembers so many jobs."""
    return ("--max-queued-jobs", str(jobs + 1), "--max-finished-jobs", str(jobs + 1))


def rows(result: LoadResult) -> Sequence[Row]:
    """The table."""
    count = len(result.jobs)
    health = [f"p50 {result.percentile(50):.2f} ms", f"p99 {result.percentile(99):.2f} ms"]
    health += [f"at most {1e3 * max(result.health):.1f} ms", f"{len(result.health)} calls"]
    return [
        ("submissions", f"{count} in {result.submitting:.1f} s, {count / result.submitting:.0f}/s"),
        ("events to watchers", f"{result.events}, {result.gaps} lost or repeated"),
        ("watchers without an end", str(result.unfinished)),
        ("cancelling all, to the last watcher's end", f"{result.ending:.1f} s"),
        (
            "health",
            ", ".join(health),
        ),
        *(
            (f"resident memory {when}", f"{nbytes / MEGABYTE:.0f} MB")
            for when, nbytes in result.memory.items()
        ),
    ]


async def load(
    address: str, pid: int, source: Path, outputs: Path, submissions: int, watchers: int
) -> LoadResult:
    """Puts the load on a server.

    Args:
        address: Of the server.
        pid: Its process.
        source: A checkpoint that it may read.
        outputs: A folder that it may write to.
        submissions: Jobs that are queued.
        watchers: Streams that are open at once, each to another job.
    """
    result = LoadResult()
    async with contextlib.AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(
                grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
            )
            for _ in range(CONNECTIONS)
        ]
        done = asyncio.Event()
        checking = asyncio.create_task(_check_health(address, result, done))
        result.memory["idle"] = memory(pid, "VmRSS")
        start = time.perf_counter()
        await _submit_all(channels, source, outputs, submissions, result)
        result.submitting = time.perf_counter() - start
        result.memory["with all jobs queued"] = memory(pid, "VmRSS")
        watching = [
            asyncio.create_task(_watch(channels[number % CONNECTIONS], name, result))
            for number, name in enumerate(result.jobs[-watchers:])
        ]
        await asyncio.sleep(1)  # until all of them wait
        result.memory["with all watchers"] = memory(pid, "VmRSS")
        start = time.perf_counter()
        await _cancel_all(channels, result.jobs)
        await asyncio.gather(*watching)
        result.ending = time.perf_counter() - start
        result.memory["at the end"] = memory(pid, "VmRSS")
        result.memory["at most"] = memory(pid, "VmHWM")
        done.set()
        await checking
    return result


async def _submit_all(
    channels: list[grpc.aio.Channel], source: Path, outputs: Path, count: int, result: LoadResult
) -> None:
    names: dict[int, str] = {}
    waiting = iter(range(count))

    async def submit(channel: grpc.aio.Channel) -> None:
        stub: Any = v1.QuantizationServiceStub(channel)
        for number in waiting:
            spec = v1.QuantizationSpec(
                source_uri=str(source),
                output_uri=str(outputs / f"output{number}"),
                method=v1.MethodConfig(bitsandbytes_8bit=v1.Bitsandbytes8BitConfig()),
            )
            asked = v1.QuantizeRequest(spec=spec, request_id=str(uuid.uuid4()))
            stream = stub.Quantize(asked, timeout=TIMEOUT)
            async for answer in stream:
                names[number] = answer.event.snapshot.name
                break
            stream.cancel()

    await asyncio.gather(*(submit(channels[n % len(channels)]) for n in range(AT_ONCE)))
    result.jobs = [names[number] for number in range(count)]


async def _watch(channel: grpc.aio.Channel, name: str, result: LoadResult) -> None:
    last = 0
    finished = False
    async for event in _events(channel, name):
        result.events += 1
        result.gaps += event.sequence != last + 1
        last = event.sequence
        finished = event.HasField("snapshot") and event.snapshot.HasField("end_time")
    result.unfinished += not finished


async def _events(channel: grpc.aio.Channel, name: str) -> AsyncIterator[v1.JobEvent]:
    stub: Any = v1.JobServiceStub(channel)
    async for answer in stub.WatchJob(v1.WatchJobRequest(name=name), timeout=TIMEOUT):
        if answer.event.WhichOneof("event") != "heartbeat":
            yield answer.event


async def _cancel_all(channels: list[grpc.aio.Channel], names: list[str]) -> None:
    waiting = iter(names)

    async def cancel(channel: grpc.aio.Channel) -> None:
        stub: Any = v1.JobServiceStub(channel)
        for name in waiting:
            await stub.CancelJob(v1.CancelJobRequest(name=name), timeout=TIMEOUT)

    await asyncio.gather(*map(cancel, channels))


async def _check_health(address: str, result: LoadResult, done: asyncio.Event) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        while not done.is_set():
            start = time.perf_counter()
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
            result.health.append(time.perf_counter() - start)
            await asyncio.sleep(HEALTH_PAUSE)
