"""The way to the server: address, credentials, metadata and channel options."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from quantd._version import VERSION

MAX_RECEIVED_BYTES = 64 * 1024 * 1024
"""Largest answer that is taken. A page of a listing is far smaller."""

OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.primary_user_agent", f"quantd-python/{VERSION}"),
    ("grpc.max_receive_message_length", MAX_RECEIVED_BYTES),
    # A connection that died silently is noticed in 80 s. The server's heartbeats are more frequent
    # than these pings, so that it never takes them for a flood.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # gRPC's own pause between attempts grows to two minutes; a job stream wants to be back earlier.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)

HEALTH_CHECK = "/grpc.health.v1.Health/Check"
HEALTH_REQUEST = b""
"""HealthCheckRequest for the whole server. These two messages are not worth a dependency."""
HEALTH_SERVING = b"\x08\x01"
"""HealthCheckResponse with status SERVING."""

PemSource = bytes | str | os.PathLike[str]
"""PEM text as bytes, or the path of a file that holds it."""


@dataclass(frozen=True)
class Connection:
    """Everything that is needed to open a channel."""

    address: str
    credentials: grpc.ChannelCredentials | None
    metadata: tuple[tuple[str, str], ...]

    def channel(self) -> grpc.Channel:
        """A channel for blocking calls."""
        if self.credentials is None:
            return grpc.insecure_channel(self.address, OPTIONS)
        return grpc.secure_channel(self.address, self.credentials, OPTIONS)

    def async_channel(self) -> grpc.aio.Channel:
        """A channel for asyncio."""
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.address, OPTIONS)
        return grpc.aio.secure_channel(self.address, self.credentials, OPTIONS)


def connection(
    address: str,
    *,
    token: str | None,
    tls: bool | None,
    root_certificates: PemSource | None,
    client_certificate: tuple[PemSource, PemSource] | None,
    metadata: Mapping[str, str] | Iterable[tuple[str, str]] | None,
) -> Connection:
    """Checks and completes what a client was given; see `Client`.

    Raises:
        ValueError: The settings contradict each other or would send the token in clear.
        OSError: A certificate file cannot be read.
    """
    if "://" in address and not address.startswith("unix:"):
        raise ValueError(f'address: {address!r} is a URL; write "host:port" or "unix:/path.sock"')
    certificates_given = root_certificates is not None or client_certificate is not None
    if tls is False and certificates_given:
        raise ValueError("tls=False contradicts the certificates; leave one of them out")
    if token is not None and tls is None and not certificates_given and not _is_local(address):
        raise ValueError(
            f"the token would cross the network to {address} in clear; pass tls=True, or tls=False "
            "to allow it"
        )
    items = list(metadata.items() if isinstance(metadata, Mapping) else metadata or ())
    if token is not None:
        items.append(("authorization", f"Bearer {token}"))
    credentials = None
    if tls or certificates_given:
        key, chain = client_certificate or (None, None)
        credentials = grpc.ssl_channel_credentials(_pem(root_certificates), _pem(key), _pem(chain))
    return Connection(address, credentials, tuple(items))


def _is_local(address: str) -> bool:
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    return address.rpartition(":")[0] in {"localhost", "127.0.0.1", "[::1]"}


def _pem(source: PemSource | None) -> bytes | None:
    return source if source is None or isinstance(source, bytes) else Path(source).read_bytes()
