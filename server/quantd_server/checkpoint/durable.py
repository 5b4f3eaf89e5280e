"""Files that are on the disk when a call returns, not only in the system's memory."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def fsync(path: Path) -> None:
    """Makes a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reserve(descriptor: int, nbytes: int) -> None:
    """Takes the disk that a file of ``nbytes`` needs, where the file system can."""
    allocate = getattr(os, "posix_fallocate", None)
    if allocate is None:
        return
    try:
        allocate(descriptor, 0, nbytes)
    except OSError as error:
        # File systems that cannot reserve still can be written.
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise


def write_end(path: Path, offset: int, data: bytes) -> None:
    """Ends a file with ``data`` from ``offset`` on; durable on return, its name included."""
    with open(os.open(path, _FLAGS, 0o600), "wb") as stream:
        stream.truncate(offset)
        stream.seek(offset)
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    fsync(path.parent)


def write_pieces(path: Path, pieces: Iterable[memoryview]) -> str:
    """Writes a whole file, piece by piece; durable on return, its name included.

    Returns the hexadecimal SHA-256 of its content.
    """
    digest = hashlib.sha256()
    with open(os.open(path, _FLAGS | os.O_TRUNC, 0o600), "wb", buffering=0) as stream:
        for piece in pieces:
            digest.update(piece)
            left = piece
            while left:
                left = left[stream.write(left) :]
        os.fsync(stream.fileno())
    fsync(path.parent)
    return digest.hexdigest()
