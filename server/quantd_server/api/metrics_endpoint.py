"""The port that metrics are scraped from: just enough HTTP for that.

One request a connection, GET or HEAD of /metrics, on the event loop beside the calls: what it gives
is put together in milliseconds. A client that is slow or sends too much is cut off.
"""

from __future__ import annotations

import asyncio
import socket
import traceback
from collections.abc import Callable, Mapping
from http import HTTPStatus

import msgspec

from quantd_server.api.addresses import UNIX_PREFIX, BindError, bind
from quantd_server.api.log import Log

PATH = "/metrics"
METRICS_LISTEN = "--metrics-listen"
PATIENCE = 10.0
"""Seconds from a connection's beginning to its end."""
MAX_HEAD_BYTES = 8192
MAX_CONNECTIONS = 16
TEXT = "text/plain; charset=utf-8"

Render = Callable[[str], tuple[str, bytes]]
"""Gives content type and content for a header "Accept"."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a request."""

    method: str
    path: str
    accept: str


class MetricsEndpoint:
    """Serves what ``render`` gives."""

    def __init__(self, render: Render, log: Log) -> None:
        self._render = render
        self._log = log
        self._server: asyncio.Server | None = None
        self._open = 0

    async def start(self, address: str) -> str:
        """Serve on ``address``; returns it with the port that was chosen. Raises BindError."""
        listening, bound = listening_socket(address)
        self._server = await asyncio.start_server(self._serve, sock=listening, limit=MAX_HEAD_BYTES)
        return bound

    async def close(self) -> None:
        """Take no more connections."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MAX_CONNECTIONS:
                async with asyncio.timeout(PATIENCE):
                    writer.write(self._answer(await reader.readuntil(b"\r\n\r\n")))
                    await writer.drain()
        except asyncio.LimitOverrunError:
            writer.write(_refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
        except (TimeoutError, asyncio.IncompleteReadError, OSError):
            pass  # nobody is there to tell
        finally:
            self._open -= 1
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        request = parse(head)
        if request is None:
            return _refusal(HTTPStatus.BAD_REQUEST)
        if request.path != PATH:
            return _refusal(HTTPStatus.NOT_FOUND)
        if request.method not in ("GET", "HEAD"):
            return _refusal(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
        try:
            content_type, content = self._render(request.accept)
        except Exception:  # noqa: BLE001 - a fault of ours must not go on to the caller
            self._log("metrics.failed", level="error", trace=traceback.format_exc())
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR)
        whole = _response(HTTPStatus.OK, content_type, content)
        return whole if request.method == "GET" else whole[: len(whole) - len(content)]


def listening_socket(address: str) -> tuple[socket.socket, str]:
    """A socket that listens on "host:port", and its address. Raises BindError."""
    if address.startswith(UNIX_PREFIX):
        raise BindError(f'cannot listen on {address!r}: {METRICS_LISTEN} takes "host:port"')
    made: list[socket.socket] = []

    def add_port(address: str) -> int:
        host, _, port = address.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            made.append(socket.create_server((host, int(port)), family=family))
        except OSError:
            return 0
        return int(made[0].getsockname()[1])

    bound = bind(address, add_port, option=METRICS_LISTEN)
    return made[0], bound


def parse(head: bytes) -> Request | None:
    """The head of an HTTP/1 request (RFC 9112); None when it is none."""
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return None
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            return None
        headers[name.lower()] = value.strip()
    return Request(
        method=words[0], path=words[1].partition("?")[0], accept=headers.get("accept", "")
    )


def _refusal(status: HTTPStatus, headers: Mapping[str, str] = {}) -> bytes:
    return _response(status, TEXT, f"{status.phrase}: GET {PATH}\n".encode(), headers)


def _response(
    status: HTTPStatus, content_type: str, content: bytes, headers: Mapping[str, str] = {}
) -> bytes:
    fields = {
        "Content-Type": content_type,
        "Content-Length": str(len(content)),
        "Connection": "close",
        **headers,
    }
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content
