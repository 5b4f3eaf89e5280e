"""Table: what it takes to describe a checkpoint of 5,000 tensors and 140 GB from its headers."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.processes import BenchError, Server, children, memory, server
from bench.table import MEGABYTE, print_table
from tests import sparse_checkpoint

import quantd

STARTS = 5
CALLS = 20
SETTLING = 2.0
"""Seconds for a new server's header reader to be ready."""

NOTES = """\
The checkpoint is sparse files: its headers are real, its weights are holes. Cold: the first call
to a new server, with the files out of the page cache as far as the kernel lets go of them. Times
are the Python client's own, over a unix socket. Memory: peak of the process that reads headers,
after describing the real model only, and after describing the large one, too."""

Row = tuple[str, str]


def main(model: Path, cache: Path) -> None:
    """Measures and prints.

    Args:
        model: A checkpoint of SmolLM2.
        cache: Folder for the checkpoint, which is removed again.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="sparse-") as folder:
        source = Path(folder, "checkpoint")
        size = sparse_checkpoint.write(source)
        rows = [
            ("checkpoint", f"{size / 1e9:.0f} GB in {sparse_checkpoint.TENSORS:,} tensors"),
            cold_row(source, Path(folder)),
        ]
        with server(reads=model, writes=Path(folder)) as running:
            rows += warm_rows(running, model, source)
    print_table("InspectCheckpoint", ["", "measured"], rows, justify="left", notes=NOTES)


def cold_row(source: Path, folder: Path) -> Row:
    """Seconds of the first call."""
    took = []
    for _ in range(STARTS):
        with server(reads=source, writes=folder) as running:
            time.sleep(SETTLING)
            forget(source)
            with quantd.Client(running.address) as client:
                client.capabilities()  # the connection
                took.append(inspect(client, source))
    return "cold", f"{1e3 * statistics.median(took):.0f} ms, at most {1e3 * max(took):.0f} ms"


def warm_rows(running: Server, model: Path, source: Path) -> Iterator[Row]:
    """Milliseconds of further calls, and memory."""
    with quantd.Client(running.address) as client:
        inspect(client, model)
        (reader,) = children(running.pid)
        before = memory(reader, "VmHWM")
        took = [inspect(client, source) for _ in range(CALLS)]
        yield "warm", f"{1e3 * statistics.median(took):.0f} ms, at most {1e3 * max(took):.0f} ms"
        after = memory(reader, "VmHWM")
    yield "memory", f"{before / MEGABYTE:.0f} MB, then {after / MEGABYTE:.0f} MB"


def inspect(client: quantd.Client, source: Path) -> float:
    """Seconds of one call, whose answer must be about all of the checkpoint."""
    start = time.perf_counter()
    answer = client.inspect(source)
    took = time.perf_counter() - start
    if not answer.loads or not answer.checkpoint.tensor_count:
        raise BenchError(f"{source} was not described")
    return took


def forget(folder: Path) -> None:
    """Asks the kernel to drop the files from its cache."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
