"""System calls that fail, or end the process, on demand.

Python imports this module at the start of every process that has its folder on PYTHONPATH: the
server of a test and its workers (``tests.faults.injection``). So nothing in quantd knows of it.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sqlite3
import sys
import threading
from pathlib import Path

CALLS = ("fsync", "link", "posix_fallocate", "preadv", "pwrite", "rename", "replace", "unlink")


class Injector:
    """Looks up, at every call, whether something is armed for it."""

    def __init__(self, folder: Path, process: str) -> None:
        self._folder = folder
        self._process = process
        self._lock = threading.Lock()
        self._open, self._unlink = os.open, os.unlink

    def at(self, call: str, when: str) -> None:
        path = self._folder / f"{self._process}.{call}.{when}"
        if not path.exists():
            return
        with self._lock:
            try:
                armed = json.loads(path.read_text())
            except (OSError, ValueError):  # another process was faster
                return
            armed["calls"] -= 1
            if armed["calls"]:
                path.write_text(json.dumps(armed))
                return
            self._unlink(path)
        if armed["fault"] == "KILL":
            os.kill(os.getpid(), signal.SIGKILL)
        number = getattr(errno, armed["fault"])
        if call == "commit":
            raise sqlite3.OperationalError(os.strerror(number))  # as SQLite would say it
        raise OSError(number, os.strerror(number))

    def wrap(self, name: str) -> None:
        original = getattr(os, name)

        def call(*args, **kwargs):
            self.at(name, "before")
            result = original(*args, **kwargs)
            self.at(name, "after")
            return result

        setattr(os, name, call)

    def wrap_commits(self) -> None:
        injector, connect = self, sqlite3.connect

        class Connection(sqlite3.Connection):
            def execute(self, sql, *args):
                if sql != "COMMIT":
                    return super().execute(sql, *args)
                injector.at("commit", "before")
                result = super().execute(sql, *args)
                injector.at("commit", "after")
                return result

        sqlite3.connect = lambda *args, **kwargs: connect(*args, factory=Connection, **kwargs)


def process() -> str | None:
    """Which of our processes this is; None for one that nothing is injected into."""
    if "quantd_server.engine.worker" in sys.orig_argv:
        return "worker"
    return "server" if "serve" in sys.orig_argv else None


folder, ours = os.environ.get("PYTHON_INJECTED_FAULTS"), process()
if folder and ours:
    injector = Injector(Path(folder), ours)
    for each in CALLS:
        injector.wrap(each)
    injector.wrap_commits()
