"""The servers that vectors need: real ones, `quantd serve` in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc
from tests.api import tokens_on_disk
from tests.api.certificates import Authority
from tests.api.server_process import COMMAND, environment
from tests.conformance.forwarder import Forwarder

from quantd import v1

START_SECONDS = 60.0
STOP_SECONDS = 60.0


@dataclass(frozen=True)
class Kind:
    """What a server is started with."""

    options: tuple[str, ...] = ()
    is_shared: bool = True
    """Whether the vectors of a language share one; else each vector has its own."""
    is_guarded: bool = False
    """Whether it has TLS and tokens."""
    is_durable: bool = False
    """Whether it has a state folder, and stays at one address when it is started again."""


KINDS: dict[str, Kind] = {
    "plain": Kind(("--max-running-jobs=2", "--heartbeat-interval=1")),
    "guarded": Kind(is_guarded=True),
    "narrow": Kind(
        ("--max-queued-jobs=1", "--max-events-per-job=4", "--max-request-bytes=20000"),
        is_shared=False,
    ),
    "throttled": Kind(("--max-calls-per-second=0.05",), is_shared=False, is_guarded=True),
    "forgetful": Kind(("--grace=2",), is_shared=False),
    "durable": Kind(("--grace=2", "--heartbeat-interval=1"), is_shared=False, is_durable=True),
}

CALLERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "reader": ("read", {}),
    "submitter": ("submit", {}),
    "other": ("submit", {}),
    "admin": ("admin", {}),
    "late": ("admin", {"expires": tokens_on_disk.EXPIRED}),
}
"""Role and options of the callers that a guarded server knows. "stranger" has a token that it does
not know, and a vector without a token has none."""


class Server:
    """One server, from its first start on. ``address`` stays the same."""

    def __init__(self, kind: Kind, folder: Path, sources: Path) -> None:
        """``folder`` gets its files and, below "outputs", what jobs write."""
        self.kind = kind
        self.folder = folder
        self.sources = sources
        self.outputs = folder / "outputs"
        self.outputs.mkdir(parents=True)
        (folder / "nowhere").mkdir()
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = contextlib.ExitStack()
        self._options: list[str] = [*kind.options]
        self._listen = "127.0.0.1:0" if kind.is_durable or kind.is_guarded else f"unix:{folder}/s"
        self._ended_worker: int | None = None
        self.forwarder: Forwarder | None = None
        self.authority: Path | None = None
        if kind.is_durable:
            self.forwarder = self._closing.enter_context(Forwarder())
            self._options.append(f"--state={folder / 'state'}")
        if kind.is_guarded:
            self._guard()

    def _guard(self) -> None:
        authority = Authority(self.folder)
        pair = authority.issue("server")
        entries = [
            tokens_on_disk.entry(name, role, **options) for name, (role, options) in CALLERS.items()
        ]
        tokens = tokens_on_disk.write(self.folder / "tokens.toml", *entries)
        for name in (*CALLERS, "stranger"):
            (self.folder / f"{name}.token").write_text(tokens_on_disk.token_of(name))
        self.authority = authority.certificate
        self._options += [f"--tls-certificate={pair.certificate}", f"--tls-key={pair.key}"]
        self._options.append(f"--tokens={tokens}")

    @property
    def address(self) -> str:
        """Where runners connect to."""
        return self.forwarder.address if self.forwarder else self.own_address

    def runner_options(self, token: str) -> Sequence[str]:
        """What a runner is started with."""
        options = ["--address", self.address]
        if self.authority:
            options += ["--ca", str(self.authority)]
        if token:
            options += ["--token", str(self.folder / f"{token}.token")]
        return options

    @property
    def is_running(self) -> bool:
        """Whether it was started and not ended."""
        return self._process is not None

    def start(self) -> None:
        """Starts it, on its folders as they are, and waits until it serves."""
        ready, log = self.folder / "ready", self.folder / "log"
        ready.unlink(missing_ok=True)
        roots = [f"--output-root={folder}" for folder in (self.outputs, self.sources)]
        roots.append(f"--source-root={self.sources}")
        command = [*COMMAND, "--listen", self._listen, "--ready-file", str(ready), *roots]
        # No programs: what is found on PATH must not decide about a vector.
        env = {**environment(), "PATH": str(self.folder / "nowhere")}
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*command, *self._options], stdout=output, stderr=output, env=env
            )
        end = time.monotonic() + START_SECONDS
        while not ready.exists():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the server does not start: {log.read_text()[-2000:]}")
            time.sleep(0.01)
        (self.own_address,) = ready.read_text().split()
        if self.forwarder:
            self.forwarder.lead_to(self.own_address)

    def kill(self) -> None:
        """Ends it by signal 9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it in order."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(STOP_SECONDS)
        self._process = None
        if self.forwarder:
            self.forwarder.lead_to(None)

    def kill_worker(self) -> None:
        """Ends the worker of its newest job by signal 9, as the kernel does without memory."""
        self._end_worker(signal.SIGKILL)

    def abort_worker(self) -> None:
        """Ends the worker of its newest job by signal 6, as a fault in native code does."""
        self._end_worker(signal.SIGABRT)

    def _end_worker(self, number: int) -> None:
        end = time.monotonic() + START_SECONDS
        # A job is told to be RUNNING just before its worker is started.
        while (pid := self._newest_worker()) in (None, self._ended_worker):
            assert time.monotonic() < end, "no worker was started"
            time.sleep(0.02)
        self._ended_worker = pid
        os.kill(pid, number)

    def _newest_worker(self) -> int | None:
        lines = (self.folder / "log").read_text().splitlines()
        started = [line for line in map(json.loads, lines) if line["event"] == "job.started"]
        return int(started[-1]["worker_pid"]) if started else None

    def cut(self) -> None:
        """Breaks all connections to it."""
        assert self.forwarder is not None
        self.forwarder.cut()

    def channel(self) -> grpc.Channel:
        """A bare channel that goes straight to it; not for guarded ones."""
        return grpc.insecure_channel(self.own_address)

    def log_of(self, name: str, after_sequence: int) -> list[v1.JobEvent] | None:
        """The events that it keeps of a finished job; None when it has no such job."""
        request = v1.WatchJobRequest(name=name, after_sequence=after_sequence)
        with self.channel() as channel:
            try:
                answers = v1.JobServiceStub(channel).WatchJob(request, timeout=60)
                return [answer.event for answer in answers]
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
                return None

    def has_only_a_cpu(self) -> bool:
        """Whether no driver lists another device."""
        with self.channel() as channel:
            stub = v1.QuantizationServiceStub(channel)
            answer = stub.GetCapabilities(v1.GetCapabilitiesRequest(), timeout=60)
        return all(device.kind == v1.DeviceKind.DEVICE_KIND_CPU for device in answer.devices)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._closing.close()


def unmet(need: str, server: Server) -> str:
    """Why the machine is not what a vector needs; empty when it is."""
    if need == "unprivileged" and os.geteuid() == 0:
        return "no permission stops root"
    if need == "cpu" and not server.has_only_a_cpu():
        return "it is about machines without a GPU"
    return ""


NEEDS = ("", "cpu", "unprivileged")
