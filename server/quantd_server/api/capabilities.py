"""The answer of `GetCapabilities` and the host behind it, kept ready and renewed in the background.

Drivers can be slow and importing torch takes seconds, so nothing of that happens in a call: the
host is examined by a thread while somebody asks, torch once by a process of its own: at once where
there is a GPU to ask about, else when somebody first wants to know.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from quantd import v1
from quantd_server.api.log import Log
from quantd_server.api.translation import to_message
from quantd_server.errors import QuantdError
from quantd_server.host.description import Host
from quantd_server.host.torch_build import TorchBuild
from quantd_server.host.torch_probe import probe_torch

if TYPE_CHECKING:
    from quantd_server.planning.capability_report import CapabilityReporter

REFRESH_SECONDS = 5.0
"""Age that the figures of memory and devices may reach."""

ATTENTION_SECONDS = 60.0
"""How long after a call the figures are still kept fresh; then until the next one they are not."""

PATIENCE_SECONDS = 0.25
"""How long a call waits for figures that are too old to be renewed, before it takes the old."""


class Capabilities:
    """Answers from memory: figures at most ``REFRESH_SECONDS`` old unless a driver is slow."""

    def __init__(
        self,
        make_reporter: Callable[[], CapabilityReporter],
        log: Log,
        *,
        probe: Callable[[], Awaitable[TorchBuild]] = probe_torch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``make_reporter`` is called once, in a thread."""
        self._make_reporter = make_reporter
        self._log = log
        self._probe = probe
        self._clock = clock
        self._reporter: CapabilityReporter | None = None
        self._answer: v1.GetCapabilitiesResponse | None = None
        self._torch: TorchBuild | None = None
        self._renewed_at = self._asked_at = clock()
        self._asked = asyncio.Event()
        self._renewed = asyncio.Event()
        self._renewing = asyncio.Lock()
        self._torch_wanted = asyncio.Event()
        self._torch_known = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._prober: asyncio.Task[None] | None = None
        self._renewal: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to examine the host, and to ask torch if there is a GPU."""
        self._keeper = asyncio.create_task(self._keep_fresh(), name="capabilities")
        self._prober = asyncio.create_task(self._ask_torch(), name="torch")

    async def current(self, *, refresh: bool = False) -> v1.GetCapabilitiesResponse:
        """The newest answer. Not to be changed.

        Waits for the very first one, and a moment when nobody has asked for long. ``refresh`` waits
        for packages to be looked up again, and has torch asked again.

        Raises QuantdError CAPABILITIES_UNKNOWN while no report has succeeded.
        """
        self._torch_wanted.set()
        if refresh:
            await self._start_anew()
        return await self._newest()

    async def host(self, *, with_torch: bool = False) -> Host:
        """The host as ``current`` describes it; ``with_torch`` waits until torch was asked.

        Raises QuantdError like ``current``.
        """
        if with_torch:
            self._torch_wanted.set()
            await self._torch_known.wait()
        await self._newest()
        assert self._reporter is not None
        return self._reporter.host

    async def close(self) -> None:
        """Stop examining; a process that asks torch is ended."""
        for task in (self._keeper, self._prober, self._renewal):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _newest(self) -> v1.GetCapabilitiesResponse:
        await self._freshen()
        if self._answer is None:
            raise QuantdError(
                reason="CAPABILITIES_UNKNOWN",
                kind="unavailable",
                message="the host could not be examined",
                remedy="try again with backoff; the server's log says what is wrong",
            )
        return self._answer

    async def _freshen(self) -> None:
        self._asked_at = now = self._clock()
        self._asked.set()
        if self._answer is None:
            await self._renewed.wait()
        elif now - self._renewed_at > 2 * REFRESH_SECONDS:  # the keeper had stopped looking
            if self._renewal is None or self._renewal.done():
                self._renewal = asyncio.create_task(self._renew(), name="renewal")
            await asyncio.wait({self._renewal}, timeout=PATIENCE_SECONDS)

    async def _keep_fresh(self) -> None:
        while True:
            await self._renew()
            await asyncio.sleep(REFRESH_SECONDS)
            if self._clock() - self._asked_at > ATTENTION_SECONDS:
                self._asked.clear()
                await self._asked.wait()

    async def _renew(self, *, packages: bool = False) -> None:
        async with self._renewing:
            begun = self._clock()
            try:
                self._answer = await asyncio.to_thread(self._make, packages)
                self._renewed_at = begun
            except Exception as error:  # noqa: BLE001 - the next round may succeed; until then the old one holds
                self._log("capabilities.failed", level="error", error=repr(error))
            self._renewed.set()

    def _make(self, packages: bool) -> v1.GetCapabilitiesResponse:  # noqa: FBT001 - of a thread
        if self._reporter is None:
            self._reporter = self._make_reporter()
        self._reporter.examine(self._torch, packages=packages)
        return to_message(self._reporter.report(), v1.GetCapabilitiesResponse)

    async def _start_anew(self) -> None:
        """Forget what torch told, and have packages looked up again."""
        if self._prober is not None and self._torch_known.is_set():
            self._torch, self._torch_known = None, asyncio.Event()
            self._torch_wanted.set()
            self._prober = asyncio.create_task(self._ask_torch(), name="torch")
        await self._renew(packages=True)

    async def _ask_torch(self) -> None:
        known = self._torch_known
        await self._renewed.wait()
        host = self._reporter.host if self._reporter is not None else None
        if host is None or len(host.devices) == 1:  # no GPU: seconds of work that few ask for
            await self._torch_wanted.wait()
        try:
            if host is None or host.version_of("torch"):
                self._torch = await self._probe()
                self._log(
                    "torch",
                    level="warning" if self._torch.failure else "info",
                    version=self._torch.version,
                    devices=self._torch.devices,
                    failure=self._torch.failure or None,
                )
                await self._renew()
        finally:
            known.set()
