"""The process that does one job: started with its order, read line by line, asked to stop.

A process of its own because quantizing takes all cores and much memory, and because an
out-of-memory kill must not take the server along. The protocol is ``engine.worker``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable

import msgspec

from quantd_server.engine.events import WorkerEvent
from quantd_server.engine.specification import WorkOrder
from quantd_server.host.process_environment import process_environment

MAX_LINE_BYTES = 64 << 20
"""Longest line of the worker; a result names every file of the output."""

KEPT_LOG_BYTES = 8192
"""How much of the worker's standard error is kept for the server's log."""

MAX_STDERR_LINE_BYTES = 2048
MAX_STDERR_LINES = 1000
"""That are told one by one; a library that warns at every step must not fill the server's log."""

_decode = msgspec.json.Decoder(WorkerEvent).decode


class WorkerProcess:
    """One worker. ``start``, then read ``events`` to the end, then look at ``returncode``."""

    def __init__(self, on_stderr: Callable[[str], None] = lambda _: None) -> None:
        """``on_stderr`` hears the lines of the worker's standard error as they come."""
        self._on_stderr = on_stderr
        self._stderr_lines = 0
        self._process: asyncio.subprocess.Process | None = None
        self._log = bytearray()

    async def start(self, order: WorkOrder, *, keep_open: tuple[int, ...] = ()) -> None:
        """Start the process and hand it its order.

        ``keep_open``: descriptors that it holds as long as it lives, for the locks on them.
        """
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "quantd_server.engine.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=MAX_LINE_BYTES,
            pass_fds=keep_open,
            start_new_session=True,  # a Ctrl-C at the server's terminal is the server's to handle
            env=process_environment(
                OMP_NUM_THREADS=str(order.threads),
                # Threads that wait by spinning take the cores from each other on a busy machine:
                # torch was measured to take three times as long.
                OMP_WAIT_POLICY="PASSIVE",
            ),
        )
        stdin = self._process.stdin
        assert stdin is not None
        # The worker may end before it has read its order; that shows in its return code.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            stdin.write(msgspec.json.encode(order) + b"\n")
            await stdin.drain()
        # stdin stays open: the worker takes its end as the end of the server.

    async def events(self) -> AsyncIterator[WorkerEvent]:
        """What the worker says, until it has ended."""
        process = self._process
        assert process is not None and process.stdout is not None
        log = asyncio.create_task(self._collect_log())
        try:
            async for line in process.stdout:
                if line.endswith(b"\n"):  # the last words of a worker that was killed may not
                    yield _decode(line)
        except BaseException:
            self.kill()
            raise
        finally:
            if process.returncode is None:
                await process.wait()
            await log

    async def _collect_log(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        rest = b""
        while piece := await self._process.stderr.read(65536):
            self._log += piece
            del self._log[:-KEPT_LOG_BYTES]
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                self._tell(line)
            rest = rest[:MAX_STDERR_LINE_BYTES]
        self._tell(rest)

    def _tell(self, line: bytes) -> None:
        text = line[:MAX_STDERR_LINE_BYTES].decode(errors="replace").strip()
        if not text or self._stderr_lines > MAX_STDERR_LINES:
            return
        self._stderr_lines += 1
        self._on_stderr(text if self._stderr_lines <= MAX_STDERR_LINES else "(more is left out)")

    @property
    def log(self) -> str:
        """The end of the worker's standard error."""
        return self._log.decode(errors="replace")

    @property
    def returncode(self) -> int | None:
        """Exit status; negative for a signal; None while it runs."""
        return self._process.returncode if self._process else None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def ask_to_stop(self) -> None:
        """Let the worker stop at the next chunk and clean up."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
