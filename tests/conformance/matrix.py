"""Plays all vectors in a language, and shows what came of it."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.conformance import fixtures, languages
from tests.conformance.play import Play
from tests.conformance.runner import Runner
from tests.conformance.servers import KINDS, Server, unmet
from tests.conformance.vector import Vector

PASSED, FAILED, SKIPPED = "ok", "FAILED", "-"


@dataclass
class Outcome:
    """What came of one vector in one language."""

    mark: str
    details: list[str] = field(default_factory=list)
    seconds: float = 0.0


Column = dict[str, Outcome]
"""By the name of the vector."""


class Stage:
    """The servers and runners of one language; those that vectors share are kept."""

    def __init__(self, command: Sequence[str], scratch: Path, sources: Path) -> None:
        """``sources`` is shared by languages; ``scratch`` is a new folder with a short path."""
        self._command = command
        self._scratch = scratch
        self._sources = sources
        self._shared: dict[str, Server] = {}
        self._runners: dict[tuple[str, str], Runner] = {}
        self._closing = contextlib.ExitStack()
        self._sharing = threading.Lock()

    def play(self, vector: Vector) -> Outcome:
        """Plays a vector. Several may be played at once."""
        begin = time.monotonic()
        outcome = self._play(vector)
        return dataclasses.replace(outcome, seconds=time.monotonic() - begin)

    def _play(self, vector: Vector) -> Outcome:
        with contextlib.ExitStack() as own:
            with self._sharing:
                fixtures.provide(vector, self._sources)
                if KINDS[vector.server].is_shared:
                    server = self._shared_server(vector.server)
                    runner = self._shared_runner(vector.server, vector.caller, server)
            if not KINDS[vector.server].is_shared:
                server = own.enter_context(self._new_server(vector.server, vector.name))
                runner = own.enter_context(self._new_runner(server, vector.caller))
            if why := unmet(vector.needs, server):
                return Outcome(SKIPPED, [why])
            failures = Play(vector, runner, server).run()
        return Outcome(FAILED if failures else PASSED, failures)

    def _shared_server(self, kind: str) -> Server:
        if kind not in self._shared:
            self._shared[kind] = self._closing.enter_context(self._new_server(kind, kind))
        return self._shared[kind]

    def _shared_runner(self, kind: str, token: str, server: Server) -> Runner:
        if (kind, token) not in self._runners:
            runner = self._closing.enter_context(self._new_runner(server, token))
            self._runners[kind, token] = runner
        return self._runners[kind, token]

    def _new_server(self, kind: str, name: str) -> Server:
        folder = self._scratch / name.replace("/", "-")
        return Server(KINDS[kind], folder, self._sources)

    def _new_runner(self, server: Server, token: str) -> Runner:
        command = [*self._command, *server.runner_options(token)]
        return Runner(command, languages.environment())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()


def groups(vectors: Sequence[Vector]) -> list[list[Vector]]:
    """Vectors that may be played at the same time as others, those that take long first.

    Callers of a guarded server see each other's jobs: these are played one after the other.
    """
    found = [[vector] for vector in vectors if not KINDS[vector.server].is_guarded]
    guarded = [vector for vector in vectors if KINDS[vector.server].is_guarded]
    return sorted([*found, guarded], key=lambda group: not any(each.is_slow for each in group))


def lines(vectors: Iterable[Vector], columns: Mapping[str, Column]) -> Iterator[str]:
    """The matrix: a line a vector, a column a language."""
    width = max(len(vector.name) for vector in vectors)
    yield " ".join([" " * width, *(f"{name:8}" for name in columns)])
    for vector in vectors:
        marks = [column[vector.name].mark for column in columns.values()]
        yield " ".join([f"{vector.name:{width}}", *(f"{mark:8}" for mark in marks)])


def summary(name: str, column: Column, seconds: float) -> str:
    """One line about a language."""
    marks = [outcome.mark for outcome in column.values()]
    counts = ", ".join(
        f"{marks.count(mark)} {word}"
        for mark, word in ((PASSED, "passed"), (FAILED, "failed"), (SKIPPED, "skipped"))
        if mark in marks
    )
    return f"{name}: {counts} in {seconds:.0f} s"


def complaints(columns: Mapping[str, Column]) -> Iterator[str]:
    """Everything that failed, in detail."""
    for name, column in columns.items():
        for vector, outcome in column.items():
            if outcome.mark == FAILED:
                yield f"{name}, {vector}:"
                yield from (f"    {detail}" for detail in outcome.details)


def slowest(columns: Mapping[str, Column], count: int = 12) -> Iterator[str]:
    """The vectors that take longest, and how long."""
    for name, column in columns.items():
        for vector in sorted(column, key=lambda each: -column[each].seconds)[:count]:
            yield f"{name}, {vector}: {column[vector].seconds:.1f} s"
