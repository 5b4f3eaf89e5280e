"""The events of a job, read with asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Protocol, Self

import grpc

from quantd import v1
from quantd._errors import error_of_call
from quantd._follower import JobFollower


class Responses(Protocol):
    """A stream of `QuantizeResponse` or `WatchJobResponse`."""

    def __aiter__(self) -> AsyncIterator[Any]: ...
    def cancel(self) -> object: ...


class Attach(Protocol):
    """Opens a stream of the job `name`, or of the new job when `name` is empty."""

    def __call__(self, name: str, after_sequence: int) -> Responses: ...


class AsyncJobStream(AsyncIterator[v1.JobEvent]):
    """Iterates over the events of a job, from the first not yet seen to its last one.

    A lost connection is made anew without losing or repeating an event; see `Reconnect`. Leaving
    the iterator, by `close()` or by `break`, does not touch the job: only `cancel()` does. After
    `close()`, or a cancelled `__anext__`, iterating goes on where it was.

    Returned by `AsyncClient.quantize` and `AsyncClient.watch`; not to be constructed.
    """

    def __init__(
        self,
        follower: JobFollower,
        *,
        attach: Attach,
        get_job: Callable[[str], Awaitable[v1.Job]],
        cancel: Callable[[str, str], Awaitable[v1.Job]],
    ) -> None:
        self._follower = follower
        self._attach = attach
        self._get_job = get_job
        self._cancel = cancel
        self._call: Responses | None = None
        self._first: v1.JobEvent | None = None
        self._closed = False

    @property
    def job(self) -> v1.Job:
        """The job as far as its events tell; `progress` is that of the last event."""
        return self._follower.job

    @property
    def name(self) -> str:
        """Name of the job, "jobs/{id}"."""
        return self._follower.job.name

    @property
    def last_sequence(self) -> int:
        """Sequence of the last event seen."""
        return self._follower.last_sequence

    async def __anext__(self) -> v1.JobEvent:
        """Waits for the next event.

        Raises:
            StopAsyncIteration: The job is over.
            QuantdError: The server does not know the job any more, it cannot be reached for longer
                than `Reconnect.timeout`, or the stream was closed meanwhile.
        """
        if self._first is not None:
            event, self._first = self._first, None
            return event
        self._closed = False
        while not self._follower.is_over():
            received = await self._receive()
            if received is not None and self._follower.accept(received):
                if self._follower.is_over():
                    self.close()
                return received
        raise StopAsyncIteration

    async def _receive(self) -> v1.JobEvent | None:
        """One event; None when the stream broke or ended and a pause was made."""
        try:
            if self._call is None:
                self._call = self._attach(self._follower.job.name, self._follower.last_sequence)
            async for response in self._call:
                event: v1.JobEvent = response.event
                return event
            self._call = None
            if self.name:
                self._follower.see(await self._get_job(self.name))
            error = None
        except grpc.RpcError as broken:
            self._call = None
            error = error_of_call(broken)
            if self._closed:
                raise error from None
        except BaseException:
            # The read that was interrupted may still take an event off the wire.
            self.close()
            raise
        if not self._follower.is_over():
            await asyncio.sleep(self._follower.delay_after(error))
        return None

    async def start(self) -> Self:
        """Waits for the first event and keeps it for the iteration."""
        self._first = await anext(self)
        return self

    async def find(self, name: str) -> Self:
        """Takes in the job of that name, and waits for a server that cannot be reached yet."""
        while True:
            try:
                self._follower.see(await self._get_job(name))
            except grpc.RpcError as broken:
                await asyncio.sleep(self._follower.delay_after(error_of_call(broken)))
            else:
                return self

    async def cancel(self, reason: str = "") -> v1.Job:
        """Asks the server to stop the job; its events go on until the last one.

        Args:
            reason: Why, for the record.

        Returns:
            The job, which may still be CANCELLING.

        Raises:
            QuantdError: The call did not succeed.
        """
        return await self._cancel(self.name, reason)

    async def result(self) -> v1.QuantizationResult:
        """Reads the remaining events and returns what the job made.

        Returns:
            The result.

        Raises:
            JobFailed: The job failed.
            JobCancelled: The job was cancelled.
            QuantdError: See `__anext__`.
        """
        async for _ in self:
            pass
        return self._follower.result()

    def close(self) -> None:
        """Leaves the stream; the job goes on."""
        self._closed = True
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    async def __aenter__(self) -> Self:
        """Returns itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leaves the stream."""
        self.close()
