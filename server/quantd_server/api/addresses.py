"""Binding the addresses a server listens on, so that a mistake is said and never shared.

gRPC by itself replaces an existing unix socket, and by SO_REUSEPORT shares a TCP port with another
server; both would split the calls between two servers without a word.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

UNIX_PREFIX = "unix:"
PRIVATE_UMASK = 0o177
"""Leaves mode 0600: who may open the socket may call the server."""


class BindError(Exception):
    """An address cannot be listened on; the message says why and what to do."""


def bind(address: str, add_port: Callable[[str], int], *, option: str = "--listen") -> str:
    """Listen on ``address`` and return it with the port that was chosen.

    ``add_port`` is the server's ``add_insecure_port``; ``option`` is where the address is from.
    Raises BindError.
    """
    if address.startswith(UNIX_PREFIX):
        return _bind_socket(address, add_port)
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise BindError(f'cannot listen on {address!r}: write "host:port" or "unix:/path"')
    try:
        bound = add_port(address)
    except RuntimeError:
        bound = 0
    if bound == 0:
        raise BindError(
            f"cannot listen on {address}: the port is taken, or the address is not one of this "
            f"host; stop the other server or choose another with {option}"
        )
    return f"{host}:{bound}"


def remove_socket(address: str) -> None:
    """Remove what ``bind`` left in the file system."""
    if address.startswith(UNIX_PREFIX):
        with contextlib.suppress(OSError):
            socket_path(address).unlink()


def is_local(address: str) -> bool:
    """Whether only programs on this host can reach the address."""
    if address.startswith(UNIX_PREFIX):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which can mean anything
        return host == "localhost"


def socket_path(address: str) -> Path:
    """The path in "unix:/path" or "unix:///path"."""
    return Path(address.removeprefix(UNIX_PREFIX).replace("///", "/", 1))


def _bind_socket(address: str, add_port: Callable[[str], int]) -> str:
    path = socket_path(address)
    if not path.is_absolute():
        raise BindError(f"cannot listen on {address}: the path of a unix socket must be absolute")
    _remove_stale(path)
    try:
        with _umask(PRIVATE_UMASK):
            bound = add_port(f"{UNIX_PREFIX}{path}")
    except RuntimeError:
        bound = 0
    if bound == 0:
        raise BindError(
            f"cannot listen on {address}: its folder is missing or not writable, or the path is "
            "longer than the system allows (about 100 characters)"
        )
    return f"{UNIX_PREFIX}{path}"


def _remove_stale(path: Path) -> None:
    """Remove the socket that a server left when it was killed; refuse anything else."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise BindError(f"cannot listen on {path}: something that is no socket is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise BindError(f"cannot listen on {path}: {error.strerror or error}") from None
    raise BindError(f"cannot listen on {path}: another server does; stop it or choose another path")


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
