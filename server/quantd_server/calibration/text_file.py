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
        try:
            budget = 2 * self._limit  # records may end far behind the windows they begin in
            for start, stop in self._windows():
                begin = self._align(start)
                for position, number, raw in self._split(begin, stop):
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

    def _align(self, start: int) -> int:
        """Where the first line at or after ``start`` begins; in a .txt file without lines, the
        first character.
        """
        if start == 0:
            return 0
        self._file.seek(start - 1)
        rest = self._file.readline(MAX_RECORD_BYTES)
        if self.is_json or rest.endswith(b"\n"):
            return self._file.tell()
        skipped = 1
        while skipped < len(rest) and rest[skipped] & 0xC0 == 0x80:
            skipped += 1
        return start - 1 + skipped

    def _split(self, begin: int, stop: int) -> Iterator[tuple[int, int, bytes]]:
        """(position, number of its first line from ``begin``, bytes) of each record."""
        self._file.seek(begin)
        position, number = begin, 0
        paragraph, paragraph_start, first_line = bytearray(), begin, 1
        while position < stop or paragraph:
            line = self._line(position)
            number += 1
            if self.is_json:
                if not line:
                    return
                yield position, number, line
                position += len(line)
                continue
            if not line.strip() or len(paragraph) + len(line) > MAX_RECORD_BYTES:
                if paragraph:
                    yield paragraph_start, first_line, bytes(paragraph).rstrip()
                    paragraph.clear()
                if not line:
                    return
            if line.strip():
                if not paragraph:
                    paragraph_start, first_line = position, number
                paragraph += line
            position += len(line)
            if not paragraph and position >= stop:
                return

    def _line(self, position: int) -> bytes:
        """The next line with its end; of a longer one in a .txt file, as much as is allowed."""
        line = self._file.readline(MAX_RECORD_BYTES)
        if len(line) < MAX_RECORD_BYTES or line.endswith(b"\n"):
            return line
        if self.is_json:
            raise self._error(
                "JSON_LINE_INVALID",
                f"the line at byte {position} is longer than {MAX_RECORD_BYTES} bytes",
                "divide its text among several lines",
            )
        cut = line.rfind(b" ") + 1
        if cut == 0:  # no words either: between two characters
            cut = len(line) - 1
            while cut > len(line) - 4 and line[cut] & 0xC0 == 0x80:
                cut -= 1
        self._file.seek(position + cut)
        return line[:cut]

    def _decode(self, raw: bytes, position: int) -> str:
        try:
            return raw.removeprefix(b"\xef\xbb\xbf" if position == 0 else b"").decode("utf-8")
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
