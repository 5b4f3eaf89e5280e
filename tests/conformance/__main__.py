"""Runs the conformance suite: `python -m tests.conformance`."""

from __future__ import annotations

import argparse
import fnmatch
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conformance import languages
from tests.conformance.matrix import (
    FAILED,
    Column,
    Stage,
    complaints,
    groups,
    lines,
    slowest,
    summary,
)
from tests.conformance.vector import Vector, load


def main() -> int:
    """Prints the matrix; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument(
        "--language",
        nargs="+",
        action="extend",
        choices=languages.LANGUAGES,
        help="columns of the matrix; all that have a toolchain here, if none is named",
    )
    parser.add_argument("--vector", nargs="+", action="extend", help='names, or "plan/*"')
    parser.add_argument("--at-once", type=int, default=3, help="vectors to play at once")
    parser.add_argument("--times", action="store_true", help="say which vectors take longest")
    parser.add_argument("--quick", action="store_true", help="leave out what takes long")
    options = parser.parse_args()
    vectors = [
        vector
        for vector in load()
        if (
            not options.vector or any(fnmatch.fnmatch(vector.name, each) for each in options.vector)
        )
        and not (options.quick and vector.is_slow)
    ]
    if not vectors:
        parser.error("no vector has such a name")
    columns: dict[str, Column] = {}
    summaries = []
    # Short paths: those of unix sockets end at some hundred characters.
    with tempfile.TemporaryDirectory(prefix="quantd-") as scratch:
        for name in options.language or languages.LANGUAGES:
            if why := languages.missing(languages.LANGUAGES[name]):
                summaries.append(f"{name}: skipped, {why}")
                continue
            begin = time.monotonic()
            try:
                columns[name] = column_of(name, vectors, Path(scratch), options.at_once)
            except languages.NotBuiltError as error:
                print(error, file=sys.stderr)
                return 1
            summaries.append(summary(name, columns[name], time.monotonic() - begin))
    print(*lines(vectors, columns), *complaints(columns), *summaries, sep="\n")
    if options.times:
        print(*slowest(columns), sep="\n")
    failed = any(each.mark == FAILED for column in columns.values() for each in column.values())
    return int(failed or not columns)


def column_of(name: str, vectors: list[Vector], scratch: Path, at_once: int) -> Column:
    """Builds a runner and plays the vectors."""
    folder = scratch / name
    folder.mkdir()
    (scratch / "sources").mkdir(exist_ok=True)
    command = languages.build(languages.LANGUAGES[name], folder)
    column: Column = {}
    with Stage(command, folder, scratch / "sources") as stage:

        def play(group: list[Vector]) -> None:
            for vector in group:
                column[vector.name] = stage.play(vector)
                if sys.stderr.isatty():
                    count = f"{len(column)}/{len(vectors)}"
                    print(f"\r{name} {count} {vector.name:60}", end="", file=sys.stderr)

        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(play, groups(vectors)))
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return column


if __name__ == "__main__":
    sys.exit(main())
