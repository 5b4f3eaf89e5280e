"""The server's log: one line an event, on standard error, as JSON or for people."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from quantd_server.settings import LogFormat, LogLevel

LEVELS: dict[LogLevel, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Log:
    """Writes events that weigh at least ``level``: ``log("job.queued", job=name)``."""

    def __init__(
        self, *, level: LogLevel = "info", form: LogFormat = "json", stream: TextIO | None = None
    ) -> None:
        self._threshold = LEVELS[level]
        self._format: Callable[[dict[str, Any]], str] = _as_json if form == "json" else _as_text
        self._stream = stream if stream is not None else sys.stderr

    def __call__(
        self, event: str, *, level: LogLevel = "info", always: bool = False, **fields: Any
    ) -> None:
        """Write one line, whatever its level if ``always``; fields that are None are left out."""
        if LEVELS[level] < self._threshold and not always:
            return
        entry = {"time": _utc(time.time()), "level": level, "event": event}
        entry |= {key: value for key, value in fields.items() if value is not None}
        self._stream.write(self._format(entry) + "\n")
        self._stream.flush()

    def capture_standard_logging(self) -> None:
        """Send warnings and errors of libraries, asyncio and grpc among them, here too."""
        logging.basicConfig(level=logging.WARNING, handlers=[_Forwarder(self)], force=True)


class _Forwarder(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        level: LogLevel = "error" if record.levelno >= logging.ERROR else "warning"
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else None
        self._log(
            "library", level=level, logger=record.name, message=record.getMessage(), trace=trace
        )


def _utc(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


def _as_json(entry: dict[str, Any]) -> str:
    return json.dumps(entry, default=str)


def _as_text(entry: dict[str, Any]) -> str:
    head = f"{entry.pop('time')} {entry.pop('level').upper():7} {entry.pop('event')}"
    trace = entry.pop("trace", None)
    # !a: a client's text must not forge lines or move a terminal's cursor
    line = " ".join([head, *(f"{key}={value!a}" for key, value in entry.items())])
    return f"{line}\n{trace}" if trace else line
