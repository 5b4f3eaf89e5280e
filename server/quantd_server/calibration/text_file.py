"""Reading a file of texts, of any size, without reading more of it than is needed.

A file up to the limit is read whole. Of a larger one, as many bytes as the limit says are read, in
windows that are spread evenly over it. What is read depends on nothing but the file and the limit,
so that planning and the job see the same texts.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import BinaryIO, Self

import msgspec

from quantd_server.errors import QuantdError, quoted

WINDOWS = 64
"""Places that are read in a file larger than the limit."""

MAX_RECORD_BYTES = 4 << 20
"""Longest line of a .jsonl file, and longest paragraph that is not cut."""


class Record(msgspec.Struct, frozen=True):
    """One paragraph or one line, as it is in the file."""

    text: str
    place: str
    """For messages: ``line 3``, or ``the line at byte 1000`` when only parts are read."""


class TextFile:
    """An open file of texts. Use as a context manager.

    Raises QuantdError TEXT_FILE_FORMAT or TEXT_FILE_UNREADABLE.
    """

    def __init__(self, path: str, field: str, *, limit: int, spread: bool) -> None:
        """``limit``: bytes to read at most, but for the end of the last record of a window.

        With ``spread`` they come from the whole file, otherwise from its beginning.
        """
        self._field = field
        self._limit = limit
        self._spread = spread
        name = os.path.basename(path).lower()
        if not name.endswith((".txt", ".jsonl")):
            raise self._error(
                "TEXT_FILE_FORMAT",
                f"{quoted(name)} is neither a .txt nor a .jsonl file",
                "give paragraphs in a .txt file, or JSON objects in a .jsonl file, one a line",
            )
        self.is_json = name.endswith(".jsonl")
        self._file = self._open(path)
        self.size = os.fstat(self._file.fileno()).st_size
        self.read_in_parts = self.size > limit
        """Whether the file is larger than the limit."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def records(self) -> Iterator[Record]:
        """Paragraphs of a .txt file, lines of a .jsonl file; empty ones are left out.

        Raises QuantdError TEXT_NOT_UTF8, JSON_LINE_INVALID (a line that is too long) or
        TEXT_FILE_UNREADABLE.
        """
        split = self._lines if self.is_json else self._paragraphs
        budget = 2 * self._limit  # lines may end far behind the windows that they begin in
        try:
            for start, stop in self._windows():
                for position, number, raw in split(self._align(start, stop), stop):
                    budget -= len(raw)
                    text = self._decode(raw, position)
                    if text.strip():
                        yield Record(text, self._place(number, position))
                    if budget < 0:
                        return
        except OSError as error:
            raise self._unreadable(error) from None

    def _windows(self) -> list[tuple[int, int]]:
        if not self.read_in_parts:
            return [(0, self.size)]
        if not self._spread:
            return [(0, self._limit)]
        starts = [self.size * window // WINDOWS for window in range(WINDOWS)]
        return [(start, start + self._limit // WINDOWS) for start in starts]

    def _align(self, start: int, stop: int) -> int:
        """Where the first line at or after ``start`` begins, or in a .txt file whose lines are
        longer than the window, the first character.
        """
        if start == 0:
            return 0
        self._file.seek(start - 1)
        rest = self._file.readline(MAX_RECORD_BYTES if self.is_json else stop - start)
        if self.is_json and len(rest) == MAX_RECORD_BYTES and not rest.endswith(b"\n"):
            raise self._too_long(f"the line around byte {start}")
        if self.is_json or rest.endswith(b"\n"):
            return self._file.tell()
        skipped = 1
        while skipped < len(rest) and _continues_character(rest[skipped]):
            skipped += 1
        return start - 1 + skipped

    def _lines(self, begin: int, stop: int) -> Iterator[tuple[int, int, bytes]]:
        """(position, number counted from ``begin``, bytes) of each line that begins before
        ``stop``.
        """
        self._file.seek(begin)
        position, number = begin, 0
        while position < stop:
            line = self._file.readline(MAX_RECORD_BYTES)
            if not line:
                return
            number += 1
            if len(line) == MAX_RECORD_BYTES and not line.endswith(b"\n"):
                raise self._too_long(self._place(number, position))
            yield position, number, line
            position += len(line)

    def _paragraphs(self, begin: int, stop: int) -> Iterator[tuple[int, int, bytes]]:
        """As ``_lines``, of each paragraph, the last one cut at ``stop``."""
        self._file.seek(begin)
        position, number = begin, 0
        first, first_number, paragraph = begin, 1, bytearray()
        while position < stop:
            allowed = min(MAX_RECORD_BYTES, stop - position)
            read = line = self._file.readline(allowed)
            if not line:
                break
            if not line.endswith(b"\n") and position + len(line) < self.size:
                line = _whole_words(line)
                if allowed < stop - position:  # the rest of it comes next
                    self._file.seek(position + len(line))
                    read = line
            number += 1
            blank = not line.strip()
            if paragraph and (blank or len(paragraph) + len(line) > MAX_RECORD_BYTES):
                yield first, first_number, bytes(paragraph)
                paragraph.clear()
            if not blank:
                if not paragraph:
                    first, first_number = position, number
                paragraph += line
            position += len(read)
        if paragraph:
            yield first, first_number, bytes(paragraph)

    def _decode(self, raw: bytes, position: int) -> str:
        try:
            mark = b"\xef\xbb\xbf" if position == 0 else b""
            return raw.removeprefix(mark).decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise self._error(
                "TEXT_NOT_UTF8",
                f"byte {position + error.start} is not part of UTF-8 text",
                "save the file as UTF-8",
            ) from None

    def _place(self, number: int, position: int) -> str:
        if self.read_in_parts and self._spread:
            return f"the line at byte {position}"
        return f"line {number}"

    def _open(self, path: str) -> BinaryIO:
        try:
            # O_NONBLOCK: opening a FIFO would otherwise wait for a writer.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise self._unreadable(error) from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise self._error(
                "TEXT_FILE_UNREADABLE", "it is not a regular file", "name a regular file"
            )
        return os.fdopen(descriptor, "rb")

    def _too_long(self, place: str) -> QuantdError:
        return self._error(
            "JSON_LINE_INVALID",
            f"{place} is longer than {MAX_RECORD_BYTES} bytes",
            "divide its text among several lines",
        )

    def _unreadable(self, error: OSError) -> QuantdError:
        return self._error(
            "TEXT_FILE_UNREADABLE",
            f"the file cannot be read: {os.strerror(error.errno or 0)}",
            "give the server's user permission to read it, and check the storage that holds it",
        )

    def _error(self, reason: str, message: str, remedy: str) -> QuantdError:
        return QuantdError(
            reason=reason, field=self._field, message=message, remedy=remedy, kind="precondition"
        )


def _whole_words(line: bytes) -> bytes:
    """The beginning of a line that was cut: to its last space, or to its last whole character."""
    cut = line.rfind(b" ") + 1
    if cut == 0:
        cut = len(line) - 1
        while cut > 0 and _continues_character(line[cut]):
            cut -= 1
    return line[:cut]


def _continues_character(byte: int) -> bool:
    """Whether a byte of UTF-8 is not the first one of a character."""
    return byte & 0xC0 == 0x80
