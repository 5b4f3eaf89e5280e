"""Table: what quantd's server and its clients add to gRPC itself, in Go, Rust and Python."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.processes import REPOSITORY, BenchError, server
from bench.table import print_table, ratio

import quantd

CALLS = 3000
STREAMS = 200
BUILD_SECONDS = 1800
RUN_SECONDS = 1200

NOTES = """\
One process serves quantd and, on a second socket of the same event loop, a bare gRPC echo without
interceptor or messages. client: through the library of that language. stub: the generated code
alone, to the same server. echo: the same answer's bytes through the bare echo. Unary: GetJob of a
finished job. Events: the log of that job, read again from its beginning, against as many copies of
its median event. One caller, one call after the other, over a unix socket; the three kinds take
turns. Server and caller share the machine's cores. x: time as a multiple of the echo's."""

KINDS = ("client", "stub", "echo")

Command = tuple[str, Path, Sequence[str]]
"""Language, folder to run in, program and first arguments."""


@dataclass(frozen=True)
class Program:
    """What measures in one language. Commands run in ``folder``; {output} is where a build goes."""

    language: str
    folder: str
    run: tuple[str, ...]
    build: tuple[str, ...] = ()


PROGRAMS = (
    Program(
        language="Go",
        folder="clients/go",
        build=("go", "build", "-o", "{output}", "./internal/overhead"),
        run=("{output}",),
    ),
    Program(
        language="Rust",
        folder="clients/rust",
        build=("cargo", "build", "--release", "--locked", "--quiet", "--example", "overhead"),
        run=("target/release/examples/overhead",),
    ),
    Program(language="Python", folder=".", run=(sys.executable, "-m", "bench.overhead_client")),
)


def main(model: Path, cache: Path) -> None:
    """Measures and prints; a language without its tools is named and left out.

    Args:
        model: A checkpoint of SmolLM2, whose quantization leaves a log of some hundred events.
        cache: Folder for outputs, which are removed again.
    """
    with tempfile.TemporaryDirectory(prefix="quantd-bench-") as scratch:
        commands = list(build(Path(scratch)))
        rows = [
            row
            for language, measured in run(commands, model, cache, calls=CALLS, streams=STREAMS)
            for row in rows_of(language, measured)
        ]
    columns = ["", "p50", "p99", "p50 x", "p99 x", "events/s", "x"]
    print_table("Overhead of a call and of an event", columns, rows, notes=NOTES)


def run(
    commands: Sequence[Command], model: Path, cache: Path, *, calls: int, streams: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What each program measures, against one server: seconds by kind, and the number of events."""
    outputs = cache / "outputs"
    shutil.rmtree(outputs, ignore_errors=True)
    outputs.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="quantd-bench-") as scratch:
        echo = f"unix:{scratch}/echo"
        try:
            with server(
                reads=model,
                writes=outputs,
                options=("--echo", echo),
                program=("bench.overhead_server",),
            ) as running:
                with quantd.Client(running.address) as client:
                    job = client.quantize(model, outputs / "model", quantd.bitsandbytes_8bit())
                    job.result()
                arguments = (running.address, echo, job.name, str(calls), str(streams))
                for language, folder, command in commands:
                    answer = _run([*command, *arguments], folder, RUN_SECONDS)
                    yield language, json.loads(answer)
        finally:
            shutil.rmtree(outputs, ignore_errors=True)


def build(scratch: Path, programs: Sequence[Program] = PROGRAMS) -> Iterator[Command]:
    """Those programs that can be built here.

    Raises:
        BenchError: The compiler refuses one.
    """
    for program in programs:
        folder = REPOSITORY / program.folder
        output = str(scratch / program.language)
        if program.build:
            if shutil.which(program.build[0]) is None:
                print(f"leaving out {program.language}: {program.build[0]} is not on PATH")
                continue
            command = [part.format(output=output) for part in program.build]
            _run(command, folder, BUILD_SECONDS)
        name, *rest = (part.format(output=output) for part in program.run)
        found = folder / name
        yield program.language, folder, [str(found) if found.exists() else name, *rest]


def rows_of(language: str, measured: dict[str, Any]) -> Iterator[list[str]]:
    """Rows of one language: one for each kind."""
    events = measured["events"]
    p50 = {kind: statistics.median(measured["calls"][kind]) for kind in KINDS}
    p99 = {
        kind: statistics.quantiles(measured["calls"][kind], n=100, method="inclusive")[98]
        for kind in KINDS
    }
    event = {kind: statistics.median(measured["streams"][kind]) / events for kind in KINDS}
    for kind in KINDS:
        yield [
            f"{language}, {kind}",
            f"{1e3 * p50[kind]:.2f} ms",
            f"{1e3 * p99[kind]:.2f} ms",
            ratio(p50[kind] / p50["echo"]),
            ratio(p99[kind] / p99["echo"]),
            f"{1 / event[kind]:,.0f}",
            ratio(event[kind] / event["echo"]),
        ]


def _run(command: Sequence[str], folder: Path, seconds: float) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode:
        raise BenchError(f"{' '.join(command)}:\n{done.stderr or done.stdout}")
    return done.stdout
