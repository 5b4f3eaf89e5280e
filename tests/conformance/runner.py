"""A runner as the harness sees it: a process that makes calls through a client library."""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

END_SECONDS = 10.0


class RunnerError(Exception):
    """The runner does not keep to the contract, or says nothing."""


@dataclass
class Call:
    """What a runner has said of one call."""

    id: str
    rpc: str
    request: dict[str, Any]
    lines: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)
    events: list[dict[str, Any]] = field(default_factory=list)
    last: dict[str, Any] | None = None
    """The line that ended it."""

    def next_event(self, deadline: float) -> dict[str, Any] | None:
        """The next event; None when the call ended.

        Raises:
            RunnerError: Nothing came in time.
        """
        if self.last is not None:
            return None
        try:
            line = self.lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise RunnerError(
                f"{self.rpc}: nothing came in time, after {len(self.events)} events"
            ) from None
        if "event" in line:
            event = line["event"]
            # A stream's message may come as it is on the wire, with the event inside.
            self.events.append(event["event"] if set(event) == {"event"} else event)
            return self.events[-1]
        self.last = line
        return None

    def finish(self, deadline: float) -> dict[str, Any]:
        """Takes in the events that are left; the last line."""
        while self.next_event(deadline) is not None:
            pass
        assert self.last is not None
        return self.last


class Runner:
    """The process. Calls run at the same time."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        self._calls: dict[str, Call] = {}
        self._numbers = itertools.count(1)
        self._complaints: list[str] = []
        self._writing = threading.Lock()
        self._threads = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def call(self, rpc: str, request: dict[str, Any], seconds: float) -> Call:
        """Begins a call."""
        call = Call(str(next(self._numbers)), rpc, request)
        self._calls[call.id] = call
        self._order(id=call.id, rpc=rpc, request=request, timeout_seconds=seconds)
        return call

    def drop(self, call: Call) -> None:
        """Ends a call on the client's side."""
        self._order(id=str(next(self._numbers)), cancel=call.id)

    def close(self) -> int:
        """Ends standard input and waits for the runner's end; its status."""
        with contextlib.suppress(OSError):
            self._input.close()
        try:
            return self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise RunnerError("the runner does not end when standard input does") from None
        finally:
            for thread in self._threads:
                thread.join(END_SECONDS)
            for stream in (self._process.stdout, self._process.stderr):
                assert stream is not None
                stream.close()

    @property
    def _input(self) -> Any:
        return self._process.stdin

    def _order(self, **members: Any) -> None:
        try:
            with self._writing:
                self._input.write(json.dumps(members).encode() + b"\n")
                self._input.flush()
        except OSError:
            raise RunnerError(f"the runner has ended: {self._said()}") from None

    def _read(self) -> None:
        output: Any = self._process.stdout
        for line in output:
            try:
                members = json.loads(line)
                self._calls[members["id"]].lines.put(members)
            except (ValueError, KeyError, TypeError):
                self._complaints.append(f"not understood: {line[:200]!r}")
        ended = {"error": {"code": "RUNNER_ENDED", "message": self._said()}}
        for call in list(self._calls.values()):
            call.lines.put({"id": call.id, **ended})

    def _read_errors(self) -> None:
        errors: Any = self._process.stderr
        for line in errors:
            self._complaints.append(line.decode(errors="replace").rstrip())

    def _said(self) -> str:
        return " | ".join(self._complaints[-20:])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RunnerError):
            self.close()
