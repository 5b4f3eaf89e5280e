"""A TCP address that stays while servers behind it come and go, and connections break."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class Forwarder:
    """Forwards connections to a server; without one, it ends them at once."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._server: str | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def lead_to(self, address: str | None) -> None:
        """Where new connections lead; None when the server is gone, and with it all connections."""
        self._server = address
        if address is None:
            self.cut()

    def cut(self) -> None:
        """Ends all connections, as a network that fails does."""
        with self._lock:
            ended, self._open = self._open, set()
        for each in ended:
            _end(each)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                inner = self._listener.accept()[0]
                self.connections += 1
                threading.Thread(target=self._connect, args=(inner,), daemon=True).start()

    def _connect(self, inner: socket.socket) -> None:
        try:
            outer = _connected(self._server)
        except OSError:
            _end(inner)
            return
        with self._lock:
            self._open |= {inner, outer}
        for pair in ((inner, outer), (outer, inner)):
            threading.Thread(target=_forward, args=pair, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()


def _connected(address: str | None) -> socket.socket:
    if address is None:
        raise ConnectionRefusedError
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=None)


def _forward(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    _end(target)
    source.close()


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
