"""Many jobs, many watchers, and watchers that do not read."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bench import load
from bench.processes import memory
from tests import tiny_models
from tests.api.durable_servers import Watcher, serving
from tests.api.server_process import ServerProcess, environment
from tests.faults.requests import request

MEGABYTE = 1_000_000


@pytest.mark.parametrize(
    ("submissions", "watchers", "growth"),
    [(100, 40, 40), pytest.param(1000, 200, 120, marks=pytest.mark.slow)],
)
def test_a_long_queue_and_many_watchers(tmp_path, submissions, watchers, growth):
    source = tiny_models.write(tmp_path / "source")
    with serving(tmp_path, "--threads", "1", *load.queue_options(submissions)) as server:
        result = asyncio.run(
            load.load(server.address, server.process.pid, source, tmp_path, submissions, watchers)
        )
    for row in load.rows(result):
        print(*row, sep=": ")
    assert len(set(result.jobs)) == submissions
    assert result.gaps == 0
    assert result.unfinished == 0
    assert result.events >= 2 * watchers
    assert result.memory["at most"] - result.memory["idle"] < growth * MEGABYTE


READER = """
import sys, time
import grpc
from quantd import v1
address, name, count = sys.argv[1:]
streams = []
for number in range(int(count)):
    channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
    for _ in range(5):
        stream = v1.JobServiceStub(channel).WatchJob(v1.WatchJobRequest(name=name))
        next(stream)
        streams.append((channel, stream))
print("reading", flush=True)
time.sleep(600)
"""
LAYERS = 300
"""So many tensors that their events do not fit into the windows of the streams."""
READERS = 8
"""Connections, with five streams each."""


def descriptors(server: ServerProcess) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_readers_that_stop_reading_cost_nothing(tmp_path):
    """Nor do those that are gone without a word: the job and other watchers do not notice."""
    tiny_models.write(tmp_path / "plain", layers=LAYERS, hidden=32, intermediate=32)
    with serving(tmp_path, "--threads", "1") as server:
        alone = Watcher()
        alone.submit(server, request(tmp_path, "bitsandbytes_8bit", "alone"))
        alone.watch(server)
        usual = memory(server.process.pid, "VmRSS")
        before = descriptors(server)
        watcher = Watcher()
        watcher.submit(server, request(tmp_path, "bitsandbytes_8bit"))
        command = [sys.executable, "-c", READER, server.address, watcher.name, str(READERS)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as reader:
            try:
                assert reader.stdout is not None and reader.stdout.readline()
                reader.send_signal(signal.SIGSTOP)
                assert descriptors(server) >= before + READERS
                watcher.watch(server)
                grown = memory(server.process.pid, "VmRSS") - usual
            finally:
                reader.kill()
        watcher.assert_whole()
        assert watcher.states() == ["QUEUED", "RUNNING", "SUCCEEDED"]
        unread = 5 * READERS * sum(event.ByteSize() for event in watcher.events)
        print(f"{unread / MEGABYTE:.1f} MB unread, server grown by {grown / MEGABYTE:.1f} MB")
        assert grown < unread / 2
        end = time.monotonic() + 30
        while descriptors(server) > before + 2:
            assert time.monotonic() < end, "connections of a client that is gone stay open"
            time.sleep(0.05)
