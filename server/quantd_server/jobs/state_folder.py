"""The folder that a server keeps its jobs in, and who may use it.

Two locks, both released by the kernel when their holders end, however they end. ``server.lock``
belongs to one server. ``workers.lock`` is handed down to every worker: a server that starts waits
for it, and so for the workers of a server that was killed. Otherwise the two could write the same
output.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from quantd_server.errors import QuantdError

STORE_FILE = "jobs.sqlite3"
WORKERS_PATIENCE = 600.0
"""Seconds that the workers of the server before may take to notice that it is gone. Most end
within a chunk of a tensor; one that is making a large output durable takes as long as the disk."""


class StateFolder:
    """A state folder that this process has for itself, until ``close``."""

    def __init__(
        self, path: str, log: Callable[..., None], *, patience: float = WORKERS_PATIENCE
    ) -> None:
        """Take the folder; make it if its parent is there, readable by this user alone.

        ``log(event, **fields)`` writes one line of the server's log.

        Raises QuantdError STATE_IN_USE or STATE_NOT_WRITABLE.
        """
        folder = Path(path).absolute()
        self.store = folder / STORE_FILE
        self._server_lock = self.workers_lock = -1
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            # Before SQLite does, which would let others read what it makes.
            os.close(_open(self.store))
            self._server_lock = _open(folder / "server.lock")
            self.workers_lock = _open(folder / "workers.lock")
            _sync(folder)  # or a loss of power could take the new files away, with all they promise
            if not _locked(self._server_lock):
                _in_use("another server uses this state folder")
            self._wait_for_workers(log, patience)
        except OSError as error:
            self.close()
            raise QuantdError(
                reason="STATE_NOT_WRITABLE",
                kind="unavailable",
                message=f"the state folder cannot be used: {os.strerror(error.errno or 0)}",
                remedy="create its parent folder, and see that the server's user may write there",
            ) from None
        except BaseException:
            self.close()
            raise

    def _wait_for_workers(self, log: Callable[..., None], patience: float) -> None:
        end = time.monotonic() + patience
        waiting = False
        while not _locked(self.workers_lock):
            if time.monotonic() > end:
                _in_use("a worker of the server before still runs")
            if not waiting:
                log("state.waiting", message="workers of the server before still run")
            waiting = True
            time.sleep(0.05)

    def close(self) -> None:
        """Let others have the folder."""
        for descriptor in (self.workers_lock, self._server_lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._server_lock = self.workers_lock = -1


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _in_use(message: str) -> NoReturn:
    raise QuantdError(
        reason="STATE_IN_USE",
        kind="precondition",
        message=message,
        remedy="stop that process first, or name another state folder",
    )
