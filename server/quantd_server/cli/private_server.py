"""A server for one command: on a socket in a private folder, gone when the command is."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from quantd_server.cli.exit_codes import ServerUnreachableError

START_TIMEOUT = 60.0
"""Seconds the server may take to start on a busy machine."""
STOP_TIMEOUT = 15.0
"""Seconds it may take to end its worker and itself."""
SHOWN_LOG_LINES = 20


@dataclass(frozen=True)
class PrivateServer:
    """A private server that is running."""

    address: str
    log: Path

    def keep_log(self) -> Path:
        """Copies the log to where it outlives the server."""
        kept = Path(tempfile.gettempdir(), f"quantd-{os.getpid()}.log")
        return Path(shutil.copyfile(self.log, kept))


@contextlib.contextmanager
def private_server(*, reads: Iterable[str], writes: Iterable[str]) -> Iterator[PrivateServer]:
    """Runs a server that may read and write the paths named, and yields it.

    Raises:
        ServerUnreachableError: It did not start; the message has the end of its log.
    """
    # Only this user can enter the folder, so only this user can call the server.
    with tempfile.TemporaryDirectory(prefix="quantd-") as folder:
        address = f"unix:{folder}/socket"
        ready = Path(folder, "ready")
        log = Path(folder, "log")
        command = [
            *(sys.executable, "-m", "quantd_server.cli.private_server_process", folder),
            *("serve", "--listen", address, "--ready-file", str(ready)),
            *(f"--source-root={root}" for root in source_roots(reads)),
            *(f"--output-root={root}" for root in output_roots(writes)),
        ]
        with log.open("wb") as log_file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # its end tells the server that we are gone
                stdout=log_file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours to handle: it cancels the job
                env=_environment(),
            )
        try:
            _wait_until_ready(process, ready, log)
            yield PrivateServer(address, log)
        finally:
            _stop(process)


def _environment() -> dict[str, str]:
    # Settings of a server that the user runs elsewhere must not reach this one; nor is it one whose
    # traces anybody collects.
    foreign = ("QUANTD_", "OTEL_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def _wait_until_ready(process: subprocess.Popen[bytes], ready: Path, log: Path) -> None:
    end = time.monotonic() + START_TIMEOUT
    while not ready.exists():
        if process.poll() is not None:
            raise ServerUnreachableError(
                f"the private server ended with status {process.returncode}; its log:\n{_tail(log)}"
            )
        if time.monotonic() > end:
            raise ServerUnreachableError(
                f"the private server did not start in {START_TIMEOUT:g} s; its log:\n{_tail(log)}"
            )
        time.sleep(0.02)


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-SHOWN_LOG_LINES:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()


def source_roots(paths: Iterable[str]) -> list[str]:
    """Folders a server has to be allowed to read so that it can read `paths`.

    Links inside a folder count too: the files of a Hugging Face cache are links to its blobs.
    """
    roots = set()
    for path in paths:
        folder = path if Path(path).is_dir() else str(Path(path).parent)
        roots.add(existing_ancestor(folder))
        if Path(path).is_dir():
            links = (entry for entry in os.scandir(path) if entry.is_symlink())
            roots.update(existing_ancestor(str(Path(link).resolve().parent)) for link in links)
    return sorted(roots)


def output_roots(paths: Iterable[str]) -> list[str]:
    """Folders a server has to be allowed to write so that it can make `paths`."""
    return sorted({existing_ancestor(str(Path(path).parent)) for path in paths})


def existing_ancestor(folder: str) -> str:
    """The folder itself, or the nearest one above it that exists, without links."""
    path = Path(folder)
    while not path.is_dir():
        path = path.parent
    return os.path.realpath(path)
