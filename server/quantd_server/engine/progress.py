"""Keeps count of what is done and how fast."""

from __future__ import annotations

import time
from collections import deque

from quantd_server.engine.events import Progress, Stage

WINDOW_SECONDS = 10.0
"""The rate is that of the last seconds, so that it follows a change of pace."""

REPORT_SECONDS = 0.5
"""Least time between two reports that nothing but progress calls for."""


class ModelProgress:
    """How far the stages are in which the model runs; written by one thread, read by another."""

    def __init__(self) -> None:
        self.stage: Stage = "CALIBRATING"
        self.started = time.monotonic()
        self.fraction = self.first_fraction = 0.0
        self.blocks_done = 0
        self.blocks_total = 0

    def enter(self, stage: Stage) -> None:
        """A stage begins."""
        self.stage, self.fraction, self.first_fraction = stage, 0.0, 0.0
        self.started = time.monotonic()

    def go_on(self, done: int, total: int) -> None:
        """An earlier worker did ``done`` blocks: they say nothing about the pace of this one."""
        self.set_blocks(done, total, 0.0)
        self.first_fraction = self.fraction
        self.started = time.monotonic()

    def set_blocks(self, done: int, total: int, fraction_of_block: float) -> None:
        """Blocks that are done, and the finished part of the current one."""
        self.blocks_done, self.blocks_total = done, total
        self.fraction = min(1.0, (done + fraction_of_block) / total)

    def set_fraction(self, fraction: float) -> None:
        """The finished part of the stage."""
        self.fraction = fraction

    @property
    def remaining(self) -> float | None:
        """Seconds to the end of the stage, at the pace so far."""
        gained = self.fraction - self.first_fraction
        if gained <= 0.0:
            return None
        return (time.monotonic() - self.started) * (1.0 - self.fraction) / gained


class ProgressMeter:
    """Counts source bytes and tensors."""

    def __init__(self, *, tensors_total: int, bytes_total: int) -> None:
        self._tensors_total = tensors_total
        self._bytes_total = bytes_total
        self._tensors_done = 0
        self._bytes_done = 0
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._reported = time.monotonic()
        self._model: ModelProgress | None = None

    def follow(self, model: ModelProgress) -> None:
        """From now on the pace is that of the model, which blocks set, not bytes."""
        self._model = model

    def add_bytes(self, count: int) -> None:
        """Count source bytes that are done."""
        self._bytes_done += count
        now = time.monotonic()
        self._marks.append((now, self._bytes_done))
        while len(self._marks) > 2 and self._marks[0][0] < now - WINDOW_SECONDS:
            self._marks.popleft()

    def add_tensor(self) -> None:
        """Count a tensor that is done."""
        self._tensors_done += 1

    def due(self) -> bool:
        """Whether it is time for a report; true at most every ``REPORT_SECONDS``."""
        now = time.monotonic()
        if now - self._reported < REPORT_SECONDS:
            return False
        self._reported = now
        return True

    def progress(self, stage: Stage) -> Progress:
        """The state now."""
        start, first = self._marks[0]
        seconds = time.monotonic() - start
        rate = (self._bytes_done - first) / seconds if seconds > 0 else 0.0
        left = self._bytes_total - self._bytes_done
        model = self._model
        return Progress(
            stage=stage,
            tensors_done=self._tensors_done,
            tensors_total=self._tensors_total,
            bytes_done=self._bytes_done,
            bytes_total=self._bytes_total,
            bytes_per_second=rate,
            remaining=model.remaining if model else left / rate if rate > 0 else None,
            blocks_done=model.blocks_done if model else 0,
            blocks_total=model.blocks_total if model else 0,
            fraction=model.fraction if model else self._bytes_done / max(1, self._bytes_total),
        )
