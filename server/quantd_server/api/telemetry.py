"""What tells operators of a server beside its log; each part only where it is asked for."""

from __future__ import annotations

from quantd_server.api.interceptor import CallObserver
from quantd_server.api.log import Log
from quantd_server.api.metrics_endpoint import MetricsEndpoint
from quantd_server.jobs.service import JobService
from quantd_server.settings import Settings


class Telemetry:
    """Metrics. ``call_observers`` go to the interceptor."""

    def __init__(self, settings: Settings, jobs: JobService, log: Log) -> None:
        self.call_observers: tuple[CallObserver, ...] = ()
        self._metrics_listen = settings.metrics_listen
        self._endpoint: MetricsEndpoint | None = None
        if settings.metrics_listen is not None:
            # Imported only now: it takes as long as a fifth of a start.
            from quantd_server.api.metrics import Metrics

            metrics = Metrics(jobs)
            self.call_observers += (metrics.calls,)
            self._endpoint = MetricsEndpoint(metrics.render, log)

    async def start(self) -> str | None:
        """Begin to serve metrics; returns their address, if they have one. Raises BindError."""
        if self._endpoint is None or self._metrics_listen is None:
            return None
        return await self._endpoint.start(self._metrics_listen)

    async def close(self) -> None:
        """Stop serving metrics."""
        if self._endpoint is not None:
            await self._endpoint.close()
