"""What tells operators of a server beside its log; each part only where it is asked for."""

from __future__ import annotations

import os

from quantd_server.api.interceptor import CallObserver
from quantd_server.api.log import Log
from quantd_server.api.metrics_endpoint import MetricsEndpoint
from quantd_server.api.tracing import Tracing, exporting, is_asked_for
from quantd_server.jobs.service import JobService
from quantd_server.settings import Settings


class Telemetry:
    """Metrics and traces. ``call_observers`` go to the interceptor."""

    def __init__(self, settings: Settings, jobs: JobService, log: Log) -> None:
        """Raises QuantdError TRACING_NOT_INSTALLED or TRACING_NOT_SUPPORTED."""
        self.call_observers: tuple[CallObserver, ...] = ()
        self._metrics_listen = settings.metrics_listen
        self._endpoint: MetricsEndpoint | None = None
        self._tracing: Tracing | None = None
        # What they stand on is imported only where it is used: it takes a part of a start.
        if settings.metrics_listen is not None:
            from quantd_server.api.metrics import Metrics

            metrics = Metrics(jobs)
            self.call_observers += (metrics.calls,)
            self._endpoint = MetricsEndpoint(metrics.render, log)
        if is_asked_for(os.environ):
            self._tracing = Tracing(exporting())
            self.call_observers += (self._tracing,)
            jobs.when_ended(self._tracing.job_ended)

    async def start(self) -> str | None:
        """Begin to serve metrics; returns their address, if they have one. Raises BindError."""
        if self._endpoint is None or self._metrics_listen is None:
            return None
        return await self._endpoint.start(self._metrics_listen)

    async def close(self) -> None:
        """Stop serving metrics, and send the last spans."""
        if self._endpoint is not None:
            await self._endpoint.close()
        if self._tracing is not None:
            await self._tracing.close()
