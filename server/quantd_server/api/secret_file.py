"""Reading the files that make the server safe, once it is sure that they are safe themselves."""

from __future__ import annotations

import os
import stat

from quantd_server.errors import QuantdError

MAX_BYTES = 4 << 20
FORBIDDEN_MODE = stat.S_IRWXO | stat.S_IWGRP
"""A group may read it, so that it can be mounted into a container; nobody else may do anything."""

FileState = tuple[int, int, int, int, int]


def read_secret(path: str, option: str) -> bytes:
    """The bytes of a file that others must neither read nor change.

    ``option`` is how the operator named it. Raises QuantdError SECRET_FILE_UNREADABLE or
    SECRET_FILE_EXPOSED.
    """
    return _read(path, option, private=True)


def read_public(path: str, option: str) -> bytes:
    """The bytes of a file that others may read. Raises QuantdError as ``read_secret`` does."""
    return _read(path, option, private=False)


def file_state(path: str) -> FileState | None:
    """Something that changes when the file does; None when it cannot be looked at."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _read(path: str, option: str, *, private: bool) -> bytes:
    try:
        # O_NONBLOCK: opening a FIFO would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise _unreadable(option, why or "unknown error") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _unreadable(option, "it is no regular file")
        if private:
            _check_private(found, option)
        with open(descriptor, "rb", closefd=False) as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(option, error.strerror or "unknown error") from None
    finally:
        os.close(descriptor)
    if len(data) > MAX_BYTES:
        raise _unreadable(option, f"it has more than {MAX_BYTES:,} bytes")
    return data


def _check_private(found: os.stat_result, option: str) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise _exposed(option, "belongs to another user", "make the server's user its owner")
    if found.st_mode & FORBIDDEN_MODE:
        mode = stat.S_IMODE(found.st_mode)
        raise _exposed(option, f"is open to other users (mode {mode:04o})", "chmod 600 it")


def _unreadable(option: str, why: str) -> QuantdError:
    return QuantdError(
        reason="SECRET_FILE_UNREADABLE",
        kind="precondition",
        message=f"the file of {option} cannot be read: {why}",
        remedy="name a file that the server's user may read",
    )


def _exposed(option: str, how: str, remedy: str) -> QuantdError:
    return QuantdError(
        reason="SECRET_FILE_EXPOSED",
        kind="precondition",
        message=f"the file of {option} {how}",
        remedy=remedy,
    )
