"""Reading tensor bytes (worker only: opens every file it reads from and keeps it open).

Plain positioned reads instead of mmap: mapped pages would count into the worker's resident
memory, which is budgeted.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import msgspec

from quantd_server.checkpoint.source_file import open_source, read_failed, source_changed
from quantd_server.errors import CheckpointError

MAX_READ = 1 << 30
"""Bytes asked of one read call: Linux returns at most 2 GiB - 4 KiB."""


class StoredTensor(Protocol):
    """What a TensorEntry and a GgufTensorEntry have in common."""

    @property
    def offset(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def file(self) -> str: ...


class FileIdentity(msgspec.Struct, frozen=True):
    """What must stay the same for a file to count as unchanged."""

    size: int
    mtime_ns: int
    inode: int


class _OpenFile(msgspec.Struct, frozen=True):
    descriptor: int
    identity: FileIdentity


class TensorReader:
    """Reads pieces of tensors below ``directory``. Thread-safe; a context manager."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, _OpenFile] = {}
        self._lock = threading.Lock()
        self._closed = False

    def read_into(self, entry: StoredTensor, byte_offset: int, buffer: memoryview) -> None:
        """Fills ``buffer`` from ``byte_offset`` within the tensor.

        Raises ValueError when the range lies outside the tensor; CheckpointError SOURCE_CHANGED
        when the file ends early, READ_FAILED, and those of ``open_source``.
        """
        target = buffer.cast("B") if buffer.format != "B" or buffer.ndim != 1 else buffer
        if byte_offset < 0 or byte_offset + len(target) > entry.nbytes:
            raise ValueError(
                f"bytes {byte_offset}..{byte_offset + len(target)} are outside a tensor of "
                f"{entry.nbytes} bytes"
            )
        opened = self._open(entry.file)
        position, end = 0, len(target)
        try:
            while position < end:
                piece = target[position : position + MAX_READ]
                got = os.preadv(opened.descriptor, [piece], entry.offset + byte_offset + position)
                if got == 0:
                    raise source_changed(entry.file)
                position += got
        except OSError as error:
            raise read_failed(entry.file, error) from None

    def read(self, entry: StoredTensor) -> bytearray:
        """All bytes of the tensor."""
        data = bytearray(entry.nbytes)
        self.read_into(entry, 0, memoryview(data))
        return data

    def advise(self, entry: StoredTensor, byte_offset: int, length: int) -> None:
        """Tells the kernel that this range is wanted soon. A hint: it never fails."""
        self._advise(entry, byte_offset, length, getattr(os, "POSIX_FADV_WILLNEED", None))

    def release(self, entry: StoredTensor, byte_offset: int, length: int) -> None:
        """Tells the kernel that this range is not wanted again. A hint: it never fails."""
        self._advise(entry, byte_offset, length, getattr(os, "POSIX_FADV_DONTNEED", None))

    def check_unchanged(self) -> None:
        """Raises SOURCE_CHANGED when a file read so far is no longer the one that was opened.

        Looks both at the open file (written in place) and at its name (replaced).
        """
        with self._lock:
            files = dict(self._files)
        for name, opened in files.items():
            try:
                current = os.stat(self._directory / name)
            except OSError:
                raise source_changed(name) from None
            for status in (current, os.fstat(opened.descriptor)):
                if _identity(status) != opened.identity:
                    raise source_changed(name)

    def identities(self) -> dict[str, FileIdentity]:
        """Of every file read so far, by relative name (for a job's journal)."""
        with self._lock:
            return {name: opened.identity for name, opened in self._files.items()}

    def close(self) -> None:
        """Closes every file. No read may be in progress or follow."""
        with self._lock:
            self._closed = True
            for opened in self._files.values():
                os.close(opened.descriptor)
            self._files.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self, name: str) -> _OpenFile:
        with self._lock:
            if self._closed:
                raise ValueError("the reader is closed")
            opened = self._files.get(name)
            if opened is None:
                descriptor = open_source(self._directory, name)
                opened = _OpenFile(descriptor, _identity(os.fstat(descriptor)))
                self._files[name] = opened
            return opened

    def _advise(
        self, entry: StoredTensor, byte_offset: int, length: int, advice: int | None
    ) -> None:
        fadvise: Callable[[int, int, int, int], None] | None = getattr(os, "posix_fadvise", None)
        length = min(length, entry.nbytes - byte_offset)
        if fadvise is None or advice is None or byte_offset < 0 or length <= 0:
            return
        try:
            fadvise(self._open(entry.file).descriptor, entry.offset + byte_offset, length, advice)
        except (OSError, CheckpointError):
            return  # The read that follows says what is wrong.


def _identity(status: os.stat_result) -> FileIdentity:
    return FileIdentity(status.st_size, status.st_mtime_ns, status.st_ino)
