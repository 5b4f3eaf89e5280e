"""Processes that are measured: a server of our own, programs beside it, and what they take."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import quantd

SAMPLING_INTERVAL = 0.02
"""Seconds between two looks at a process."""
START_TIMEOUT = 60.0
REPOSITORY = Path(__file__).resolve().parent.parent


class BenchError(Exception):
    """A measurement is not possible here; the text says why."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    address: str
    pid: int
    started: float
    """`time.perf_counter()` when its process was made."""


@contextlib.contextmanager
def server(
    *,
    reads: Path,
    writes: Path,
    options: Sequence[str] = (),
    program: Sequence[str] = ("quantd_server", "serve"),
) -> Iterator[Server]:
    """Runs `quantd serve`, or a module that takes its options, on a socket of its own.

    Raises:
        BenchError: It did not start, or a call of it failed.
    """
    with tempfile.TemporaryDirectory(prefix="quantd-bench-") as folder:
        ready, log = Path(folder, "ready"), Path(folder, "log")
        address = f"unix:{folder}/socket"
        command = [
            *(sys.executable, "-m", *program),
            *("--listen", address, "--ready-file", str(ready)),
            *("--source-root", str(reads), "--source-root", str(writes)),
            *("--output-root", str(writes), *options),
        ]
        with log.open("wb") as log_file:
            started = time.perf_counter()
            process = subprocess.Popen(command, stdout=log_file, stderr=log_file)
        try:
            while not ready.exists():
                if process.poll() is not None or time.perf_counter() - started > START_TIMEOUT:
                    raise BenchError(f"the server did not start:\n{log.read_text()[-2000:]}")
                time.sleep(0.001)
            yield Server(address, process.pid, started)
        except quantd.QuantdError as error:
            raise BenchError(
                f"{error}\nthe server's log ends:\n{log.read_text()[-4000:]}"
            ) from None
        finally:
            process.terminate()
            process.wait()


@dataclass
class Measured:
    """What a program took."""

    wall: float
    """Seconds."""
    peak_memory: int
    """Bytes, the largest resident memory."""
    cpu: float = 0.0
    """Seconds that processors worked for it; a busy machine changes it less than ``wall``."""
    report: dict[str, Any] = field(default_factory=dict)
    """What the program said of itself."""


def measure(
    command: Sequence[str], *, timeout: float = 3600.0, folder: Path = REPOSITORY
) -> Measured:
    """Runs a program in ``folder`` that prints one line of JSON at its end.

    Raises:
        BenchError: It failed.
    """
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=errors, cwd=folder)
        killer = threading.Timer(timeout, process.kill)
        killer.start()
        # The kernel's own count for exactly this process; ours would end with the last sample.
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        killer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            said = errors.read().decode(errors="replace")[-2000:]
            raise BenchError(f"{command[1:4]} ended with status {process.returncode}:\n{said}")
        output.seek(0)
        report = json.loads(output.read().splitlines()[-1])
    cpu = usage.ru_utime + usage.ru_stime
    return Measured(wall, usage.ru_maxrss * 1024, cpu, report)


class WorkerWatch:
    """Looks at the server's workers while a job runs.

    `peak_memory` is the largest seen, bytes; `cpu` what the server and its workers took, seconds.
    """

    def __init__(self, server_pid: int) -> None:
        self.peak_memory = 0
        self.cpu = 0.0
        self._server_pid = server_pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._before = cpu_seconds(self._server_pid)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # The kernel counts a worker's time once the server has seen its end.
        deadline = time.perf_counter() + START_TIMEOUT
        while self._workers() and time.perf_counter() < deadline:
            time.sleep(SAMPLING_INTERVAL)
        self._done.set()
        self._thread.join()
        self.cpu = cpu_seconds(self._server_pid) - self._before

    def _workers(self) -> list[int]:
        return [
            pid
            for pid in children(self._server_pid)
            if "quantd_server.engine.worker" in command_line(pid)
        ]

    def _watch(self) -> None:
        while not self._done.wait(SAMPLING_INTERVAL):
            for pid in self._workers():
                self.peak_memory = max(self.peak_memory, memory(pid, "VmHWM"))


def children(pid: int) -> list[int]:
    """Child processes of all threads of a process."""
    with contextlib.suppress(OSError):
        lists = Path(f"/proc/{pid}/task").glob("*/children")
        return [int(child) for text in lists for child in text.read_text().split()]
    return []


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and of those children whose end it has seen; 0 when ended."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def command_line(pid: int) -> str:
    """Its arguments; empty when it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def memory(pid: int, name: str) -> int:
    """A line of /proc/{pid}/status in bytes, such as VmRSS; 0 when the process has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            key, _, value = line.partition(":")
            if key == name:
                return int(value.split()[0]) * 1024
    return 0
