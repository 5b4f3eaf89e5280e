"""Which tensors of a job are done and durable, for a worker that goes on where another was ended.

A file in the job's hidden folder: first the digest of all that decides the bytes of the output,
then one line of JSON a tensor. Lines are added every few seconds, after what they speak of has been
synced; a tensor without a line is done again, over what may be there of it. A folder with another
digest (the source, the configuration, an importance matrix or quantd itself have changed) is
removed: nothing of it is mixed in. Worker only.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import msgspec

from quantd_server import __version__
from quantd_server.checkpoint.output import Output
from quantd_server.engine.pipeline import TaskOutcome
from quantd_server.engine.recorded_work import TENSOR_RECORD
from quantd_server.engine.specification import WorkOrder
from quantd_server.methods.base import TensorTask, WorkPlan

RECORD_NAME = TENSOR_RECORD
SYNC_SECONDS = 5.0
"""Work that may be lost to a loss of power; each sync costs what the disk takes for that much."""

_COMPUTING = ("numpy", "numba", "bitsandbytes", "torch")


class FinishedTensor(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a tensor that is done; see ``TaskOutcome``."""

    target_name: str
    relative_error: float | None
    squared_error: float
    squared_sum: float
    first_nonfinite: int
    contents: dict[str, bytes]
    """Contents of its parts of variable length, which are written in the end, by name."""

    def outcome(self, task: TensorTask) -> TaskOutcome:
        """The same as its pipeline said it."""
        return TaskOutcome(
            task=task,
            relative_error=self.relative_error,
            squared_error=self.squared_error,
            squared_sum=self.squared_sum,
            first_nonfinite=self.first_nonfinite,
        )


def output_digest(order: WorkOrder, work: WorkPlan) -> str:
    """SHA-256, in hexadecimal, over what the bytes of an output depend on."""
    digest = hashlib.sha256()
    versions = {name: version(name) for name in _COMPUTING}
    for piece in (__version__, versions, order.spec, order.source_fingerprint, work.files):
        digest.update(msgspec.msgpack.encode(piece))
    for task in work.tasks:
        digest.update(msgspec.msgpack.encode(task))
    return digest.hexdigest()


def can_go_on(working: Path, digest: str) -> bool:
    """Whether the folder is what an earlier worker left of this very job; else it is removed."""
    try:
        with (working / RECORD_NAME).open("rb") as stream:
            if stream.readline() == _first_line(digest):
                return True
    except OSError:
        pass
    shutil.rmtree(working, ignore_errors=True)
    return False


class FinishedTensors:
    """The record of one job: what it has from before, and what is added. Of one thread."""

    def __init__(self, output: Output, digest: str) -> None:
        """Go on with the record in the folder of ``output``, or start one."""
        self._output = output
        self._pending: list[FinishedTensor] = []
        self._synced = time.monotonic()
        self.earlier: dict[str, FinishedTensor] = {}
        """What an earlier worker finished, by name in the output."""
        path = output.working / RECORD_NAME
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        for line in lines[1:]:
            # The last words of a worker that was killed may be no whole line.
            tensor = _decoded(line) if line.endswith(b"\n") else None
            if tensor is None:
                break
            self.earlier[tensor.target_name] = tensor
        # What is there stays untouched: a kill may come at any moment, this one included.
        self._size = sum(map(len, lines[: len(self.earlier) + 1]))
        first = b"" if lines else _first_line(digest)
        output.record(RECORD_NAME, self._size, first)
        self._size += len(first)

    def add(self, outcome: TaskOutcome, variable_parts: Mapping[str, Mapping[str, bytes]]) -> None:
        """Record a tensor that is written; ``variable_parts`` as ``ChunkWorker`` has them."""
        self._pending.append(
            FinishedTensor(
                target_name=outcome.task.target_name,
                relative_error=outcome.relative_error,
                squared_error=outcome.squared_error,
                squared_sum=outcome.squared_sum,
                first_nonfinite=outcome.first_nonfinite,
                contents={
                    part.name: variable_parts[part.file][part.name]
                    for part in outcome.task.parts
                    if part.variable_length
                },
            )
        )
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Make all that was added durable: first the tensors, then the lines."""
        if self._pending:
            self._output.sync()
            lines = b"".join(msgspec.json.encode(each) + b"\n" for each in self._pending)
            self._output.record(RECORD_NAME, self._size, lines)
            self._size += len(lines)
            self._pending.clear()
        self._synced = time.monotonic()


def _first_line(digest: str) -> bytes:
    return digest.encode() + b"\n"


def _decoded(line: bytes) -> FinishedTensor | None:
    try:
        return msgspec.json.decode(line, type=FinishedTensor)
    except msgspec.DecodeError:
        return None
