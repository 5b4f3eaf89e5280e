"""A job's progress: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

import quantd
from quantd import v1
from quantd_server.cli import text

LINE_INTERVAL = 5.0
"""Seconds between two lines where there is no terminal."""


class Display(Protocol):
    """Shows a job while it runs."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def show(self, job: v1.Job, event: v1.JobEvent) -> None:
        """Shows the job after an event."""
        ...


def display(console: Console) -> Display:
    """The display that fits the console."""
    return BarDisplay(console) if console.is_terminal else LineDisplay(console)


class BarDisplay:
    """A bar with bytes and time left; below it tensors, rate and the tensor done last."""

    def __init__(self, console: Console) -> None:
        self._progress = _ProgressWithNote(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[distance]}"),
            console=console,
            expand=True,
            transient=True,
        )
        self._task = self._progress.add_task("queued", total=None, distance="")
        self._tensor = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, job: v1.Job, event: v1.JobEvent) -> None:
        """Moves the bar."""
        progress = job.progress
        if event.WhichOneof("event") == "tensor":
            self._tensor = described(event.tensor)
        self._progress.note = f"{pace(progress)}  {self._tensor}".strip()
        self._progress.update(
            self._task,
            description=doing(job),
            completed=progress.bytes_done,
            total=progress.bytes_total or None,
            distance=distance(progress),
        )


class _ProgressWithNote(Progress):
    """A progress bar with a line of text below it."""

    note = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield Text(self.note, style="dim", no_wrap=True, overflow="ellipsis")


class LineDisplay:
    """A line at each change of stage, and every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._doing = ""
        self._printed_at = float("-inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def show(self, job: v1.Job, event: v1.JobEvent) -> None:
        """Prints a line if it is time for one."""
        now = time.monotonic()
        if doing(job) == self._doing and now - self._printed_at < LINE_INTERVAL:
            return
        self._doing, self._printed_at = doing(job), now
        parts = [self._doing, amounts(job.progress)]
        if event.WhichOneof("event") == "tensor":
            parts.append(described(event.tensor))
        line = "  ".join(part for part in parts if part)
        self._console.print(escape(line), soft_wrap=True)


def doing(job: v1.Job) -> str:
    """What a job is doing, in a word."""
    if job.state == v1.JobState.JOB_STATE_RUNNING and job.progress.stage:
        return quantd.name_of(v1.JobStage, job.progress.stage).lower()
    state = quantd.name_of(v1.JobState, job.state).lower()
    return f"{state} ({job.queue_position} before it)" if job.queue_position else state


def amounts(progress: v1.Progress) -> str:
    """Bytes, time left, tensors and rate."""
    return ", ".join(part for part in (distance(progress), pace(progress)) if part)


def distance(progress: v1.Progress) -> str:
    """Bytes and time left."""
    if not progress.tensors_total:
        return ""
    sizes = f"{text.size(progress.bytes_done)} of {text.size(progress.bytes_total)}"
    if progress.HasField("remaining") and progress.tensors_done < progress.tensors_total:
        sizes += f", {text.duration(progress.remaining.ToTimedelta().total_seconds())} left"
    return sizes


def pace(progress: v1.Progress) -> str:
    """Tensors and rate."""
    if not progress.tensors_total:
        return ""
    tensors = f"{progress.tensors_done}/{progress.tensors_total} tensors"
    rate = progress.bytes_per_second
    return f"{tensors}, {text.size(rate)}/s" if rate else tensors


def described(tensor: v1.TensorEvent) -> str:
    """A tensor that is done: name, types and error."""
    error = f", error {tensor.relative_error:.2%}" if tensor.HasField("relative_error") else ""
    return f"{tensor.name}: {tensor.source_type} to {tensor.target_type}{error}"
