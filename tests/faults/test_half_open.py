"""Connections whose other side is gone without a word: a network that swallows everything."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from typing import Self

import grpc
import pytest
from bench.processes import memory
from tests.api.durable_servers import Watcher, serving
from tests.api.server_process import ServerProcess
from tests.faults.requests import request, write_sources

from quantd import v1

WATCHERS = 20
NOTICED = 150.0
"""Seconds: the server pings a quiet connection after 60; where streams go on to be written to, gRPC
gives it up some 50 later."""
MEGABYTE = 1_000_000


class Swallower:
    """Forwards TCP connections until told to swallow what comes; it closes none of them."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        self._swallows = threading.Event()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def swallow(self) -> None:
        self._swallows.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                pair = self._listener.accept()[0], socket.create_connection(self._target)
                self._sockets += pair
                for source, target in (pair, pair[::-1]):
                    threading.Thread(target=self._forward, args=(source, target)).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self._swallows.is_set():
                    target.sendall(data)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def ended_watches(server: ServerProcess) -> list[str]:
    """The codes of the calls that the log tells the end of."""
    return [line["code"] for line in server.events("call") if line["method"].endswith("WatchJob")]


@pytest.mark.slow
def test_watchers_that_vanish_are_noticed_and_the_job_goes_on(tmp_path):
    write_sources(tmp_path)
    with serving(tmp_path, "--threads", "1", "--heartbeat-interval", "1") as server:
        watcher = Watcher()
        watcher.submit(server, request(tmp_path, "gptq"))
        watcher.watch(server, count=1)  # it runs
        worker = server.events("job.started")[0]["worker_pid"]
        os.kill(worker, signal.SIGSTOP)  # so that the job is still there when they are missed
        try:
            with Swallower(server.address) as network, contextlib.ExitStack() as channels:
                streams = []
                for _ in range(WATCHERS):
                    options = [("grpc.use_local_subchannel_pool", 1)]
                    channel = channels.enter_context(
                        grpc.insecure_channel(network.address, options)
                    )
                    stub = v1.JobServiceStub(channel)
                    streams.append(stub.WatchJob(v1.WatchJobRequest(name=watcher.name)))
                    next(streams[-1])
                already = len(ended_watches(server))
                assert already <= 1, "those of the watchers are open"
                before = memory(server.process.pid, "VmRSS")
                network.swallow()
                end = time.monotonic() + NOTICED
                while len(ended_watches(server)) < already + WATCHERS:
                    assert time.monotonic() < end, "watches of nobody are still open"
                    time.sleep(0.5)
                grown = memory(server.process.pid, "VmRSS") - before
        finally:
            os.kill(worker, signal.SIGCONT)
        watcher.watch(server)
    assert set(ended_watches(server)) <= {"CANCELLED", "OK"}
    assert grown < 5 * MEGABYTE
    watcher.assert_whole()
    assert watcher.states() == ["QUEUED", "RUNNING", "SUCCEEDED"]
