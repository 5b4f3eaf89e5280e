"""Which decoder blocks of a job are solved and durable, for a worker that goes on after them.

Two kinds of file in the job's hidden folder. ``blocks`` has in its first line what the numbers
depend on, then a line of JSON a checkpoint: the tensors solved since the one before. ``states-N``
has the hidden states of the calibration data after N blocks, bit for bit, with which the walk goes
on. They are kept, and not computed again from the blocks that are written: what a reader computes
from those is not bit by bit what the walk saw (scales are folded and rounded, products are of
other shapes), and so later blocks would come out different.

The order makes a checkpoint whole or not there at all: the tensors are synced, then the states are
written beside those of the checkpoint before, then the line is; only then the older states go.
Worker only.
"""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import msgspec
import torch

from quantd_server.calibration.activations import scratch_failed
from quantd_server.checkpoint.output import Output
from quantd_server.engine.pipeline import TaskOutcome
from quantd_server.engine.recorded_work import BLOCK_RECORD
from quantd_server.errors import Finding, Severity
from quantd_server.host.cpu import describe_cpu
from quantd_server.host.system import this_system
from quantd_server.methods.base import TensorTask

RECORD_NAME = BLOCK_RECORD
STATES_NAME = "states-{}"

COST = 0.02
"""Largest part of the time that checkpoints take: the next one waits until the last one is that
cheap. What may be lost to a kill is one block, or fifty times what a checkpoint takes."""

Record = TypeVar("Record", bound=msgspec.Struct)

_COMPUTING = ("torch", "transformers")


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What the bits of solved blocks depend on; where it differs, they are solved again."""

    output: str
    """``finished_tensors.output_digest``."""
    calibration: str
    """SHA-256 of the token ids."""
    threads: int
    """Sums are taken in pieces, one a thread."""
    machine: str
    """Processor and libraries that compute."""

    def difference(self, other: Conditions) -> str:
        """The first thing that ``other`` has different, as it was and as it is here."""
        if other.threads != self.threads:
            return f"they ran on {other.threads} threads, now there are {self.threads}"
        if other.machine != self.machine:
            return "the processor or a library that computes is another one now"
        if other.calibration != self.calibration:
            return "the calibration data has changed"
        return "the job has changed"


class SolvedTensor(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a tensor that is done; see ``TaskOutcome``."""

    target_name: str
    relative_error: float | None
    squared_error: float
    squared_sum: float
    output_error: float | None
    rounding_output_error: float | None
    block_output_error: float | None
    untuned_block_output_error: float | None
    warnings: tuple[Finding, ...]

    @classmethod
    def of(cls, outcome: TaskOutcome) -> SolvedTensor:
        values = {
            name: getattr(outcome, name) for name in cls.__struct_fields__ if name != "target_name"
        }
        return cls(target_name=outcome.task.target_name, **values)

    def outcome(self, task: TensorTask) -> TaskOutcome:
        """The same as the solver said it."""
        return TaskOutcome(
            task=task,
            relative_error=self.relative_error,
            squared_error=self.squared_error,
            squared_sum=self.squared_sum,
            first_nonfinite=-1,
            output_error=self.output_error,
            rounding_output_error=self.rounding_output_error,
            block_output_error=self.block_output_error,
            untuned_block_output_error=self.untuned_block_output_error,
            warnings=self.warnings,
        )


class StoredStates(msgspec.Struct, frozen=True, kw_only=True):
    """A file of hidden states, one micro-batch after the other."""

    name: str
    sha256: str
    dtype: str
    shapes: tuple[tuple[int, ...], ...]


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A place from which to go on."""

    blocks: int
    """That are solved, from the first one on."""
    tensors: tuple[SolvedTensor, ...]
    """Since the checkpoint before."""
    states: StoredStates | None
    """None at the end, when nothing needs them any more."""


class SolvedBlocks:
    """The record of one job: what it has from before, and what is added. Of one thread."""

    def __init__(
        self, output: Output, conditions: Conditions, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Go on with the record in the folder of ``output``, or start one.

        Raises QuantdError as ``Output.record`` does.
        """
        self._output = output
        self._clock = clock
        self._pending: list[SolvedTensor] = []
        self._due = clock()
        self._states: StoredStates | None = None
        self.blocks = 0
        """That are solved."""
        self.complete = False
        """Whether nothing is left to solve."""
        self._tensors: dict[str, SolvedTensor] = {}
        self.warning: Finding | None = None
        """Why blocks that an earlier worker solved are solved again."""
        self._size = self._take_over(conditions)
        first = b""
        if not self._size:
            self._forget()
            first = msgspec.json.encode(conditions) + b"\n"
        # What is there stays untouched: a kill may come at any moment, this one included.
        output.record(RECORD_NAME, self._size, first)
        self._size += len(first)
        self._drop_other_states()

    def _take_over(self, conditions: Conditions) -> int:
        """Reads the record; how much of it is of use, in bytes."""
        path = self._output.working / RECORD_NAME
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        earlier = _decoded(lines[0], Conditions) if lines else None
        if earlier is None:
            return 0
        if earlier != conditions:
            if len(lines) > 1:
                self.warning = _solved_again(conditions.difference(earlier))
            return 0
        count = 1
        for line in lines[1:]:
            # The last words of a worker that was killed may be no whole line.
            checkpoint = _decoded(line, Checkpoint)
            if checkpoint is None:
                break
            self._apply(checkpoint)
            count += 1
        if self._states is not None and not self._are_whole(self._states):
            self.warning = _solved_again("what was kept to go on with is damaged")
            return 0
        return sum(map(len, lines[:count]))

    def _apply(self, checkpoint: Checkpoint) -> None:
        self.blocks, self._states = checkpoint.blocks, checkpoint.states
        self.complete = checkpoint.states is None
        self._tensors |= {tensor.target_name: tensor for tensor in checkpoint.tensors}

    def _forget(self) -> None:
        self.blocks, self._states, self.complete = 0, None, False
        self._tensors.clear()

    def _drop_other_states(self) -> None:
        kept = self._states.name if self._states else ""
        for path in self._output.working.glob(STATES_NAME.format("*")):
            if path.name != kept:
                path.unlink()

    def _are_whole(self, states: StoredStates) -> bool:
        try:
            with self._path(states).open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest() == states.sha256
        except OSError:
            return False

    def outcomes(self, tasks: Iterable[TensorTask]) -> list[TaskOutcome]:
        """Those of the tasks that are done."""
        return [
            self._tensors[task.target_name].outcome(task)
            for task in tasks
            if task.target_name in self._tensors
        ]

    def states(self) -> Iterator[torch.Tensor]:
        """The hidden states after ``blocks``, in the order of the micro-batches.

        Raises QuantdError SCRATCH_FAILED.
        """
        if self._states is None:
            return
        dtype = getattr(torch, self._states.dtype)
        try:
            with self._path(self._states).open("rb") as stream:
                for shape in self._states.shapes:
                    value = torch.empty(shape, dtype=dtype)
                    if stream.readinto(_bytes(value)) != value.nbytes:
                        raise OSError(errno.EIO, "")
                    yield value
        except OSError as error:
            raise scratch_failed(error) from None

    def add(self, outcomes: Iterable[TaskOutcome], states: Iterable[torch.Tensor]) -> None:
        """Record a block whose tensors are written.

        ``states``: the hidden states after it; they are read when a checkpoint is due.
        """
        self.blocks += 1
        self._pending += map(SolvedTensor.of, outcomes)
        if self._clock() >= self._due:
            self._checkpoint(states)

    def finish(self, outcomes: Iterable[TaskOutcome] = ()) -> None:
        """Record that everything is solved, with the tensors that no block has."""
        self._pending += map(SolvedTensor.of, outcomes)
        self._checkpoint(None)
        self.complete = True

    def _checkpoint(self, states: Iterable[torch.Tensor] | None) -> None:
        started = self._clock()
        self._output.sync()
        stored = None if states is None else self._store(states)
        line = Checkpoint(blocks=self.blocks, tensors=tuple(self._pending), states=stored)
        data = msgspec.json.encode(line) + b"\n"
        self._output.record(RECORD_NAME, self._size, data)
        self._size += len(data)
        self._pending.clear()
        self._states = stored
        self._drop_other_states()
        now = self._clock()
        self._due = now + (now - started) / COST

    def _store(self, states: Iterable[torch.Tensor]) -> StoredStates:
        name = STATES_NAME.format(self.blocks)
        shapes: list[tuple[int, ...]] = []
        dtype = ""

        def pieces() -> Iterator[memoryview]:
            nonlocal dtype
            for value in states:
                held = value.cpu().contiguous()
                shapes.append(tuple(held.shape))
                dtype = str(held.dtype).removeprefix("torch.")
                yield _bytes(held)

        digest = self._output.record_pieces(name, pieces())
        return StoredStates(name=name, sha256=digest, dtype=dtype, shapes=tuple(shapes))

    def _path(self, states: StoredStates) -> Path:
        return self._output.working / states.name


def machine() -> str:
    """What computes here: the same text where the same sums come out the same."""
    cpu = describe_cpu(this_system())
    libraries = [f"{name} {version(name)}" for name in _COMPUTING]
    return "; ".join([cpu.model, " ".join(sorted(cpu.features)), *libraries])


def _bytes(value: torch.Tensor) -> memoryview:
    return value.view(-1).view(torch.uint8).numpy().data


def _decoded(line: bytes, kind: type[Record]) -> Record | None:
    if not line.endswith(b"\n"):
        return None
    try:
        return msgspec.json.decode(line, type=kind)
    except msgspec.DecodeError:
        return None


def _solved_again(why: str) -> Finding:
    return Finding(
        severity=Severity.WARNING,
        field="",
        reason="BLOCKS_SOLVED_AGAIN",
        message=f"the blocks that an earlier worker solved are solved again: {why}",
        remedy="nothing has to be done; a server that keeps its --threads goes on where it was",
        kind="precondition",
    )
