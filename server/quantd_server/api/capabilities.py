"""The answer of `GetCapabilities`, kept ready and renewed in the background."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from quantd import v1
from quantd_server.api.log import Log
from quantd_server.api.translation import to_message
from quantd_server.errors import QuantdError

if TYPE_CHECKING:
    from quantd_server.planning.capability_report import CapabilityReporter

REFRESH_SECONDS = 5.0
"""Age that the figures of memory and devices may reach."""


class Capabilities:
    """Answers from a message that is at most ``REFRESH_SECONDS`` and one report old."""

    def __init__(self, make_reporter: Callable[[], CapabilityReporter], log: Log) -> None:
        """``make_reporter`` is called once, in a thread."""
        self._make_reporter = make_reporter
        self._log = log
        self._reporter: CapabilityReporter | None = None
        self._answer: v1.GetCapabilitiesResponse | None = None
        self._tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to make reports, in a thread: drivers can be slow."""
        self._task = asyncio.create_task(self._keep_fresh(), name="capabilities")

    async def current(self) -> v1.GetCapabilitiesResponse:
        """The newest answer; waits only for the very first one. Not to be changed.

        Raises QuantdError CAPABILITIES_UNKNOWN while no report has succeeded.
        """
        if self._answer is None:
            await self._tried.wait()
        if self._answer is None:
            raise QuantdError(
                reason="CAPABILITIES_UNKNOWN",
                kind="unavailable",
                message="the host could not be examined",
                remedy="try again with backoff; the server's log says what is wrong",
            )
        return self._answer

    async def close(self) -> None:
        """Stop renewing."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _keep_fresh(self) -> None:
        while True:
            try:
                self._answer = await asyncio.to_thread(self._make)
            except Exception as error:  # noqa: BLE001 - the next round may succeed; until then the old one holds
                self._log("capabilities.failed", level="error", error=repr(error))
            self._tried.set()
            await asyncio.sleep(REFRESH_SECONDS)

    def _make(self) -> v1.GetCapabilitiesResponse:
        if self._reporter is None:
            self._reporter = self._make_reporter()
        return to_message(self._reporter.report(), v1.GetCapabilitiesResponse)
