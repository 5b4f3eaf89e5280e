"""Writing an output so that it appears complete or not at all.

Everything is written into a hidden sibling of the final path::

    .{name}.quantd-{job id}/          found again by job id, e.g. to resume a killed job
        output/                       what will be published
        receipt                       on request: tells afterwards who published the output
        ...                           room for the job's own records, never published

``commit`` makes the bytes durable, then publishes them by one rename that cannot replace anything
but an empty directory; ``abort`` removes every trace.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from quantd_server.checkpoint.durable import fsync, reserve, write_end, write_pieces
from quantd_server.checkpoint.source_file import open_source, read_failed
from quantd_server.errors import QuantdError

_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
_NAME = re.compile(r"[^/\0]+\Z")
RECEIPT_NAME = "receipt"
COPY_BYTES = 1 << 20
"""Bytes read at a time when a file is copied or digested."""
PRIVATE_MODE = 0o700


def working_directory(final: Path, job_id: str) -> Path:
    """The hidden sibling in which the job ``job_id`` prepares ``final``."""
    if not _JOB_ID.match(job_id):
        raise ValueError(f"a job id is 1..64 letters, digits, '-' and '_'; got {job_id!r}")
    return final.parent / f".{final.name}.quantd-{job_id}"


def receipt_of_published(final: Path, job_id: str, *, single_file: bool) -> bytes | None:
    """The receipt that the job ``job_id`` left if it has published ``final``; None otherwise."""
    working = working_directory(final, job_id)
    payload = working / "output"
    try:
        receipt = (working / RECEIPT_NAME).read_bytes()
        if not single_file:
            published = final.is_dir() and not payload.exists()
        elif (payload / final.name).exists():  # the link is made, the other name is still there
            published = os.path.samefile(payload / final.name, final)
        else:
            published = final.is_file()
    except OSError:
        return None
    return receipt if published else None


class Output(abc.ABC):
    """The files of one output in the making. Thread-safe.

    A context manager that aborts on exceptions and on leaving without :meth:`commit`.
    """

    def __init__(self, final: Path, job_id: str, *, resume: bool = False) -> None:
        """Starts the output, or with ``resume`` goes on with what is there.

        Raises QuantdError OUTPUT_NOT_EMPTY, OUTPUT_PARENT_NOT_FOUND, OUTPUT_IN_USE (the working
        directory of this job exists and ``resume`` is false), OUTPUT_NOT_WRITABLE, DISK_FULL.
        """
        self.final = final
        self.working = working_directory(final, job_id)
        self.payload = self.working / "output"
        self._resume = resume
        self._files: dict[str, tuple[int, int]] = {}
        self._state = threading.Condition()
        self._writing = 0
        self._closed = False
        try:
            self._refuse_existing()
            # Nobody else looks at what is not published, the calibration data's traces included.
            self.working.mkdir(mode=PRIVATE_MODE, exist_ok=resume)
            self.payload.mkdir(exist_ok=resume)
        except FileExistsError:
            raise QuantdError(
                reason="OUTPUT_IN_USE",
                message="a job with this id is already preparing this output",
                remedy="wait for that job, or cancel it",
                field="spec.output_uri",
                kind="precondition",
            ) from None
        except FileNotFoundError:
            raise QuantdError(
                reason="OUTPUT_PARENT_NOT_FOUND",
                message="the folder that shall hold the output does not exist",
                remedy="create the parent folder of output_uri first",
                field="spec.output_uri",
                kind="not_found",
            ) from None
        except OSError as error:
            _fail(error)

    def create(self, name: str, nbytes: int) -> None:
        """Reserves ``nbytes`` of disk for the file ``name``; DISK_FULL when there are fewer.

        A resumed output keeps the bytes that the file has.
        """
        path = self.path(name)
        with self._using(), _failures_named():
            exclusive = 0 if self._resume else os.O_EXCL
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | exclusive
            descriptor = os.open(path, flags, 0o666)
            try:
                os.ftruncate(descriptor, nbytes)
                if nbytes:
                    reserve(descriptor, nbytes)
            except BaseException:
                os.close(descriptor)
                raise
            with self._state:
                if name in self._files:
                    os.close(descriptor)
                    raise ValueError(f"{name!r} was created before")
                self._files[name] = (descriptor, nbytes)

    def write_at(self, name: str, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Writes all of ``data`` at ``offset``; the range must lie inside the created size."""
        view = memoryview(data)
        if view.nbytes == 0:
            return
        view = view.cast("B")
        with self._using(), _failures_named():
            descriptor, size = self._files[name]
            if offset < 0 or offset + len(view) > size:
                raise ValueError(
                    f"bytes {offset}..{offset + len(view)} are outside {name!r} of {size} bytes"
                )
            while view:
                written = os.pwrite(descriptor, view, offset)
                offset += written
                view = view[written:]

    def write_text(self, name: str, text: str) -> None:
        """Writes a small file as UTF-8, replacing it when resumed."""
        self._write_whole(name, iter((text.encode("utf-8"),)))

    def copy_in(self, source: Path, name: str) -> None:
        """Copies the bytes of a file of the source checkpoint.

        Raises CheckpointError as ``open_source`` does or READ_FAILED, and DISK_FULL.
        """
        with open(open_source(source.parent, source.name), "rb") as stream:

            def pieces() -> Iterator[bytes]:
                try:
                    yield from iter(lambda: stream.read(COPY_BYTES), b"")
                except OSError as error:  # not one of the disk that is written
                    raise read_failed(source.name, error) from None

            self._write_whole(name, pieces())

    def sha256(self, name: str) -> str:
        """Hexadecimal SHA-256 of a file as it is now."""
        with self._using(), _failures_named(), open(self.path(name), "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def path(self, name: str) -> Path:
        """Where the file ``name`` is until it is published."""
        if not _NAME.match(name) or name in (".", ".."):
            raise ValueError(f"{name!r} is not a plain file name")
        return self.payload / name

    def sync(self) -> None:
        """Makes what was written into created files durable; writers may go on meanwhile."""
        with self._using(), _failures_named():
            for descriptor, _ in list(self._files.values()):
                os.fsync(descriptor)
            fsync(self.payload)
            fsync(self.working)

    def record(self, name: str, offset: int, data: bytes) -> None:
        """Ends a record of the job's own, which is never published, with ``data`` from ``offset``
        on; durable on return.
        """
        with self._using(), _failures_named():
            write_end(self.working / name, offset, data)

    def record_pieces(self, name: str, pieces: Iterable[memoryview]) -> str:
        """Writes a record of the job's own as a whole, piece by piece; durable on return.

        Returns its SHA-256, in hexadecimal.
        """
        with self._using(), _failures_named():
            return write_pieces(self.working / name, pieces)

    def commit(self, receipt: Callable[[], bytes] | None = None) -> None:
        """Makes the output durable and visible; afterwards nothing can be written.

        With ``receipt``, what it returns stays in the working directory, durable before anything
        is visible; whoever reads it (``receipt_of_published``) removes the directory.

        Raises QuantdError OUTPUT_NOT_EMPTY when the final path came to exist meanwhile; the
        output is then still there to be aborted (or committed again once the path is free).
        """
        with self._exclusively(), _failures_named():
            for path in self.payload.iterdir():
                fsync(path)
            fsync(self.payload)
            self._refuse_existing()
            if receipt is not None:
                write_end(self.working / RECEIPT_NAME, 0, receipt())
            self._publish()
            self._close()
        # Published: a failure from here on can no longer take the output back.
        with contextlib.suppress(OSError):
            fsync(self.final.parent)
        if receipt is None:
            shutil.rmtree(self.working, ignore_errors=True)

    def abort(self) -> None:
        """Removes everything written; does nothing after a commit or an abort."""
        with self._state:
            self._state.wait_for(lambda: self._writing == 0)
            if self._closed:
                return
            self._close()
        shutil.rmtree(self.working, ignore_errors=True)

    def detach(self) -> None:
        """Closes the files and leaves them in the working directory, for a later resume."""
        with self._exclusively():
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.abort()

    @abc.abstractmethod
    def _publish(self) -> None:
        """One atomic step from payload to final; OUTPUT_NOT_EMPTY where it would replace."""

    @abc.abstractmethod
    def _refuse_existing(self) -> None:
        """Raises OUTPUT_NOT_EMPTY when ``final`` is there."""

    def _write_whole(self, name: str, pieces: Iterator[bytes]) -> None:
        path = self.path(name)
        mode = "wb" if self._resume else "xb"
        with self._using(), _failures_named(), path.open(mode) as stream:
            stream.writelines(pieces)

    @contextlib.contextmanager
    def _using(self) -> Iterator[None]:
        """Holds the files open while they are in use.

        A descriptor closed under a writer could by then belong to another file.
        """
        with self._state:
            if self._closed:
                raise ValueError("the output was committed or aborted")
            self._writing += 1
        try:
            yield
        finally:
            with self._state:
                self._writing -= 1
                self._state.notify_all()

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[None]:
        """Waits for the writers and keeps new ones out."""
        with self._state:
            self._state.wait_for(lambda: self._writing == 0)
            if self._closed:
                raise ValueError("the output was committed or aborted")
            yield

    def _close(self) -> None:
        self._closed = True
        for descriptor, _ in self._files.values():
            os.close(descriptor)
        self._files.clear()


class OutputDirectory(Output):
    """A folder of files, published as ``final``. An empty ``final`` may exist; it is replaced."""

    def _publish(self) -> None:
        # rename(2) of a directory: refuses a file, a link and a non-empty directory by itself.
        try:
            os.rename(self.payload, self.final)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                _not_empty()
            raise

    def _refuse_existing(self) -> None:
        if self.final.is_symlink() or (self.final.exists() and not self.final.is_dir()):
            _not_empty()
        if self.final.is_dir() and any(self.final.iterdir()):
            _not_empty()


class OutputFile(Output):
    """One file, created under the name ``final.name`` and published as ``final``, and beside it
    what else was written (a record named after it).
    """

    def _publish(self) -> None:
        # The records first: once the file is there, nothing may fail any more. What an earlier
        # output of that name left of them is replaced.
        records = [path for path in self.payload.iterdir() if path.name != self.final.name]
        published: list[Path] = []
        try:
            for path in records:
                target = self.final.parent / path.name
                os.replace(path, target)
                published.append(target)
            self._publish_file()
        except BaseException:
            for target in published:
                target.unlink(missing_ok=True)
            raise

    def _publish_file(self) -> None:
        source = self.path(self.final.name)
        try:
            # Unlike rename(2), link(2) never replaces. The other name goes with the folder.
            os.link(source, self.final)
        except FileExistsError:
            _not_empty()
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise
            # A file system without hard links: checked just before, which leaves a small gap.
            os.rename(source, self.final)

    def _refuse_existing(self) -> None:
        if os.path.lexists(self.final):
            _not_empty()


@contextlib.contextmanager
def _failures_named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _fail(error)


def _fail(error: OSError) -> NoReturn:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise QuantdError(
            reason="DISK_FULL",
            message=f"the output does not fit: {os.strerror(error.errno)}",
            remedy="free disk space, or choose an output_uri on a larger disk",
            field="spec.output_uri",
            kind="precondition",
        ) from None
    raise QuantdError(
        reason="OUTPUT_NOT_WRITABLE",
        message=f"the output cannot be written: {os.strerror(error.errno or errno.EIO)}",
        remedy="give the server's user permission to write there, or choose another output_uri",
        field="spec.output_uri",
        kind="precondition",
    ) from None


def _not_empty() -> NoReturn:
    raise QuantdError(
        reason="OUTPUT_NOT_EMPTY",
        message="output_uri names something that exists and is not an empty folder",
        remedy="choose another output_uri, or remove what is there",
        field="spec.output_uri",
        kind="precondition",
    )
