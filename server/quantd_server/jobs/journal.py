"""The way from the event loop to the store: changes become durable in order, then visible.

Whatever is written while a commit runs goes into the next one, so that many events cost few syncs.
The callback of a change is called only once it is durable: watchers are told of an event from
there. A client therefore never knows a sequence that a server started again does not have.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from quantd_server.errors import QuantdError
from quantd_server.jobs.job import JobEvent, JobFilter, StoredJob
from quantd_server.jobs.refusals import shutting_down
from quantd_server.jobs.store import Change, JobStore

RETRY_DELAY = 1.0
"""Seconds between two attempts to write to a store that cannot be written."""

Then = Callable[[], None]


class Journal:
    """Writes to a store on a thread of its own. Every method belongs to the event loop."""

    def __init__(self, store: JobStore, log: Callable[..., None]) -> None:
        """``log(event, **fields)`` writes one line of the server's log."""
        self._store = store
        self._log = log
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._pending: list[tuple[Change | None, Then]] = []
        self._writer: asyncio.Task[None] | None = None
        self._fault: QuantdError | None = None
        self._closing = self._closed = False

    @property
    def durable(self) -> bool:
        """Whether what is written outlives this process."""
        return self._store.durable

    def stored_jobs(self) -> list[StoredJob]:
        """What the store has from before; blocks, and is for the time before the first change."""
        return self._store.jobs()

    def write(self, change: Change | None, then: Then) -> None:
        """Make ``change`` durable, after all before it; then call ``then``.

        Raises QuantdError SHUTTING_DOWN once the journal is closing.
        """
        if self._closing:
            raise shutting_down()
        self._append(change, then)

    def _append(self, change: Change | None, then: Then) -> None:
        self._pending.append((change, then))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_pending(), name="journal")

    async def written(self) -> None:
        """Wait until everything up to now is durable."""
        if self._closed:
            return
        done = asyncio.get_running_loop().create_future()
        self._append(None, lambda: None if done.done() else done.set_result(None))
        await done

    async def events(self, name: str) -> list[JobEvent]:
        """The stored events of a job. Raises QuantdError STATE_UNREADABLE or SHUTTING_DOWN."""
        if self._closing:
            raise shutting_down()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._store.events, name)

    async def page(
        self, wanted: JobFilter, *, owner: str | None, before: int, limit: int
    ) -> list[tuple[int, str]]:
        """Number and name of stored jobs, as ``JobStore.page`` gives them.

        Raises QuantdError STATE_UNREADABLE or SHUTTING_DOWN.
        """
        if self._closing:
            raise shutting_down()
        ask = functools.partial(self._store.page, wanted, owner=owner, before=before, limit=limit)
        return await asyncio.get_running_loop().run_in_executor(self._thread, ask)

    def check(self) -> None:
        """Raises QuantdError STATE_NOT_WRITABLE while the store cannot be written."""
        if self._fault is not None:
            raise self._fault

    async def close(self, patience: float) -> None:
        """Write what is left, for at most ``patience`` seconds, and close the store."""
        if self._closed:
            return
        self._closing = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.written(), patience)
        self._closed = True
        if self._writer is not None:
            self._writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._writer
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()

    async def _write_pending(self) -> None:
        try:
            while self._pending:
                batch, self._pending = self._pending, []
                await self._commit([change for change, _ in batch if change is not None])
                for _, then in batch:
                    then()
        finally:
            self._writer = None

    async def _commit(self, changes: list[Change]) -> None:
        loop = asyncio.get_running_loop()
        while changes:
            try:
                await loop.run_in_executor(self._thread, self._store.commit, changes)
            except QuantdError as error:
                # Nothing is lost or told meanwhile: jobs go on, their events wait here.
                if self._fault is None:
                    self._log("store.failed", level="error", message=error.message)
                self._fault = error
                await asyncio.sleep(RETRY_DELAY)
            else:
                if self._fault is not None:
                    self._log("store.recovered")
                self._fault = None
                return
