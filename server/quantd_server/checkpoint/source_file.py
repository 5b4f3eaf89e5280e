"""Opening the files of a checkpoint folder without being led out of it.

Every read of a source goes through here: regular files only (a FIFO would block the server, a
device has no size), no way out of the folder by ``..``, absolute names or symbolic links, and
JSON read under a size limit.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from quantd_server.errors import CheckpointError, quoted

MAX_JSON_TOKENS = 4_000_000
"""Commas, colons and opening brackets of one JSON text: bounds the objects that parsing it makes.
The header of 250,000 tensors of rank 2 has 3 million."""
MAX_JSON_NESTING = 64
"""Deepest nesting of a configuration or index file."""


def open_source(directory: Path, name: str) -> int:
    """A read-only file descriptor of ``directory / name``.

    Raises CheckpointError: PATH_ESCAPES_CHECKPOINT, FILE_NOT_FOUND, NOT_A_REGULAR_FILE,
    FILE_UNREADABLE.
    """
    path = contained_path(directory, name)
    try:
        # O_NONBLOCK: opening a FIFO for reading would otherwise wait for a writer. O_NOFOLLOW: the
        # path is free of links, unless somebody just put one there.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
        descriptor = os.open(path, flags)
    except OSError as error:
        raise _unopened(name, error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CheckpointError(
            reason="NOT_A_REGULAR_FILE",
            message=f"{quoted(name)} is not a regular file",
            remedy="replace it by a regular file, or point source_uri at another checkpoint",
        )
    return descriptor


def contained_path(directory: Path, name: str) -> Path:
    """The real path of ``directory / name``; PATH_ESCAPES_CHECKPOINT where it leads out.

    A link into the blob store of a Hugging Face cache (``snapshots/<revision>/x`` ->
    ``../../blobs/<hash>``) is how downloaded checkpoints look, so that one way out is allowed.
    """
    relative = PurePosixPath(name)
    if not name or "\0" in name or relative.is_absolute() or ".." in relative.parts:
        raise _escapes(name)
    path = directory / name
    try:
        root, target = directory.resolve(), path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        # RuntimeError: a loop of symbolic links; ValueError: a name no file system takes.
        raise _unopened(name, error) from None
    if target.is_relative_to(root):
        return target
    if root.parent.name == "snapshots" and target.parent == root.parent.parent / "blobs":
        return target
    raise _escapes(name)


def read_exactly(descriptor: int, offset: int, length: int, name: str) -> bytes:
    """``length`` bytes at ``offset``; CheckpointError SOURCE_CHANGED when the file ends before."""
    pieces = bytearray()
    try:
        while len(pieces) < length:
            piece = os.pread(descriptor, length - len(pieces), offset + len(pieces))
            if not piece:
                raise source_changed(name)
            pieces += piece
    except OSError as error:
        raise read_failed(name, error) from None
    return bytes(pieces)


def read_json_object(directory: Path, name: str, limit: int) -> dict[str, Any]:
    """The JSON object in ``directory / name``, which may be at most ``limit`` bytes.

    Raises CheckpointError: those of :func:`open_source`, FILE_TOO_LARGE, JSON_INVALID,
    JSON_NOT_AN_OBJECT.
    """
    descriptor = open_source(directory, name)
    try:
        size = os.fstat(descriptor).st_size
        if size > limit:
            raise CheckpointError(
                reason="FILE_TOO_LARGE",
                message=f"{quoted(name)} has {size} bytes; at most {limit} are read",
                remedy=f"check that {quoted(name)} is what its name says",
            )
        raw = read_exactly(descriptor, 0, size, name)
    finally:
        os.close(descriptor)
    try:
        if count_json_tokens(raw) > MAX_JSON_TOKENS:
            raise ValueError(f"more than {MAX_JSON_TOKENS} values")
        value = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
        # A lone surrogate ("\ud800") parses but can never be written again; nesting that parses
        # here can overflow the stack of a later reader.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
        if _nesting(value) > MAX_JSON_NESTING:
            raise ValueError(f"nested deeper than {MAX_JSON_NESTING}")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            reason="JSON_INVALID",
            message=f"{quoted(name)} is not valid JSON: {_json_fault(error)}",
            remedy=f"restore {quoted(name)} from where the checkpoint came from",
        ) from None
    if not isinstance(value, dict):
        raise CheckpointError(
            reason="JSON_NOT_AN_OBJECT",
            message=f"{quoted(name)} holds a JSON {type(value).__name__}; an object is needed",
            remedy=f"restore {quoted(name)} from where the checkpoint came from",
        )
    return value


def count_json_tokens(raw: bytes) -> int:
    """An upper bound of the values and keys in a JSON text, without parsing it."""
    return sum(map(raw.count, (b",", b":", b"[", b"{")))


def source_changed(name: str) -> CheckpointError:
    """The error for a file that is no longer what it was when the checkpoint was opened."""
    return CheckpointError(
        reason="SOURCE_CHANGED",
        message=f"{quoted(name)} was changed or cut short while it was being read",
        remedy="make sure nothing writes to the checkpoint, then submit the job again",
        kind="precondition",
    )


def read_failed(name: str, error: OSError) -> CheckpointError:
    """The error for a failed read of an open file (bad disk, lost network mount)."""
    return CheckpointError(
        reason="READ_FAILED",
        message=f"reading {quoted(name)} failed: {os.strerror(error.errno or errno.EIO)}",
        remedy="check the storage that holds the checkpoint",
        kind="precondition",
    )


def _unopened(name: str, error: Exception) -> CheckpointError:
    if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ENOTDIR):
        return CheckpointError(
            reason="FILE_NOT_FOUND",
            message=f"{quoted(name)} is not in the checkpoint folder",
            remedy="download the complete checkpoint, or correct source_uri",
            kind="not_found",
        )
    why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "bad name"
    return CheckpointError(
        reason="FILE_UNREADABLE",
        message=f"{quoted(name)} cannot be opened: {why}",
        remedy="give the server's user permission to read it",
        kind="precondition",
    )


def _escapes(name: str) -> CheckpointError:
    return CheckpointError(
        reason="PATH_ESCAPES_CHECKPOINT",
        message=f"{quoted(name)} leads out of the checkpoint folder",
        remedy="keep every file of the checkpoint inside its folder, without links out of it",
    )


def _no_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _json_fault(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno} column {error.colno}"
    if isinstance(error, UnicodeError):
        return "not UTF-8"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]


def _nesting(value: Any) -> int:
    deepest, todo = 0, [(value, 1)]
    while todo:
        node, depth = todo.pop()
        deepest = max(deepest, depth)
        children = node.values() if isinstance(node, dict) else node
        if isinstance(node, dict | list):
            todo.extend((child, depth + 1) for child in children)
    return deepest
