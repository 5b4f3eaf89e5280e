"""A server in a process of its own, started as `quantd serve` starts it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

START_SECONDS = 60.0
STOP_SECONDS = 30.0
COMMAND = (sys.executable, "-c", "from quantd_server.cli import main; main()", "serve")


class ServerProcess:
    """The process, its addresses and its log."""

    def __init__(self, process: subprocess.Popen[bytes], addresses: list[str], log: Path) -> None:
        self.process = process
        self.addresses = addresses
        self._log = log

    @property
    def address(self) -> str:
        return self.addresses[0]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The lines of the log for one event."""
        lines = [json.loads(line) for line in self._log.read_text().splitlines()]
        return [line for line in lines if line["event"] == name]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


def environment() -> dict[str, str]:
    """Ours without its settings of servers, able to import what we can."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QUANTD_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@contextlib.contextmanager
def server_process(
    folder: Path, *options: str, listen: str = "127.0.0.1:0"
) -> Iterator[ServerProcess]:
    """A server whose roots are ``folder``; it is killed if the test did not stop it."""
    ready, log = folder / ".ready", folder / ".log"
    ready.unlink(missing_ok=True)
    roots = (f"--source-root={folder}", f"--output-root={folder}")
    command = [*COMMAND, "--listen", listen, "--ready-file", str(ready), *roots, *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment())
    try:
        end = time.monotonic() + START_SECONDS
        while not ready.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.02)
        yield ServerProcess(process, ready.read_text().split(), log)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
