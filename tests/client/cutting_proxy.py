"""A proxy between client and server that cuts every connection when it is told to."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from typing import Self


class CuttingProxy:
    """Forwards a unix socket to another one."""

    def __init__(self, folder: Path, target: str) -> None:
        self.address = f"unix:{folder}/proxy.sock"
        self.connections = 0
        self._target = target.removeprefix("unix:")
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.address.removeprefix("unix:"))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]

    def cut(self) -> None:
        """Ends all connections, as a network that fails does."""
        open_sockets, self._open = self._open, []
        for each in open_sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                inner = self._listener.accept()[0]
                outer = socket.socket(socket.AF_UNIX)
                outer.connect(self._target)
                self.connections += 1
                self._open += [inner, outer]
                for pair in ((inner, outer), (outer, inner)):
                    thread = threading.Thread(target=self._forward, args=pair)
                    self._threads.append(thread)
                    thread.start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        source.close()

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()
