"""`grpc.health.v1.Health`, whose watchers do not hold up a stop."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
WATCHER_PATIENCE = 0.2
"""Seconds a watcher gets to hear NOT_SERVING before its stream ends."""


class Health(aio.HealthServicer):
    """Health of the server ("") and of each service; not serving until told so."""

    def __init__(self, services: tuple[str, ...]) -> None:
        super().__init__()
        self._services = ("", *services)
        self._server_status = dict.fromkeys(self._services, NOT_SERVING)
        self._closing = asyncio.Event()

    async def serve(self) -> None:
        """Say SERVING for everything."""
        for service in self._services:
            await self.set(service, SERVING)

    async def close(self) -> None:
        """Say NOT_SERVING for everything and end the streams of the watchers."""
        await self.enter_graceful_shutdown()
        self._closing.set()

    async def List(self, request: Any, context: Any) -> Any:  # noqa: N802
        # The class we extend leaves it out, and the stubs do not know the message.
        return health_pb2.HealthListResponse(  # type: ignore[attr-defined]
            statuses={
                service: health_pb2.HealthCheckResponse(status=status)
                for service, status in self._server_status.items()
            }
        )

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        watching = asyncio.ensure_future(super().Watch(request, context))
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({watching, closing}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
                return
            await asyncio.wait({watching}, timeout=WATCHER_PATIENCE)
        finally:
            watching.cancel()
            closing.cancel()
            await asyncio.wait({watching, closing})
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
