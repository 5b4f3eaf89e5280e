"""The Python column of `bench/overhead.py`: measures, and prints JSON as the other languages do.

Arguments: address of the server, address of the echo, name of a finished job, calls, streams.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import grpc

import quantd
from quantd import v1

WARM_UP = 100
"""Calls of each kind that are not counted."""


def main(address: str, echo_address: str, name: str, calls: int, streams: int) -> None:
    """Measures and prints."""
    with (
        quantd.Client(address) as client,
        grpc.insecure_channel(address) as channel,
        grpc.insecure_channel(echo_address) as echo,
    ):
        jobs: Any = v1.JobServiceStub(channel)
        call = echo.unary_unary(
            "/bench.Echo/Call",
            request_serializer=v1.Job.SerializeToString,
            response_deserializer=v1.Job.FromString,
        )
        repeat = echo.unary_stream(
            "/bench.Echo/Repeat",
            request_serializer=v1.WatchJobResponse.SerializeToString,
            response_deserializer=v1.WatchJobResponse.FromString,
        )
        job = client.job(name)
        watch = v1.WatchJobRequest(name=name)
        events = [answer for answer in jobs.WatchJob(watch) if is_event(answer)]
        median = sorted(events, key=v1.WatchJobResponse.ByteSize)[len(events) // 2]
        times = (("times", str(len(events))),)
        took = measure(
            {
                "client": lambda: client.job(name),
                "stub": lambda: jobs.GetJob(v1.GetJobRequest(name=name)),
                "echo": lambda: call(job),
            },
            calls,
        )
        streamed = measure(
            {
                "client": lambda: count(client.watch(name), len(events)),
                "stub": lambda: count(jobs.WatchJob(watch), len(events)),
                "echo": lambda: count(repeat(median, metadata=times), len(events)),
            },
            streams,
        )
    json.dump({"calls": took, "streams": streamed, "events": len(events)}, sys.stdout)


def is_event(answer: v1.WatchJobResponse) -> bool:
    """Whether it is one of the job's own, not a sign of life."""
    return answer.event.WhichOneof("event") != "heartbeat"


def measure(kinds: dict[str, Callable[[], object]], times: int) -> dict[str, list[float]]:
    """Seconds of each call; the kinds take turns, so that what disturbs one disturbs all."""
    took: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(-min(WARM_UP, times), times):
        for kind, ask in kinds.items():
            start = time.perf_counter()
            ask()
            if number >= 0:
                took[kind].append(time.perf_counter() - start)
    return took


def count(answers: Iterable[object], expected: int) -> None:
    """Reads a stream to its end."""
    seen = sum(1 for _ in answers)
    if seen < expected:
        raise ValueError(f"a stream of {expected} events ended after {seen}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
