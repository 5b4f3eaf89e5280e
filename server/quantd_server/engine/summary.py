"""What an output consists of, and how far it is from its source."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from quantd_server.engine.events import TypeSummary
from quantd_server.methods.base import TensorTask


def summarize_types(tasks: Iterable[TensorTask]) -> tuple[TypeSummary, ...]:
    """What each target type contributes, largest first."""
    counts: Counter[str] = Counter()
    elements: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for task in tasks:
        counts[task.target_type] += 1
        elements[task.target_type] += task.element_count
        sizes[task.target_type] += task.target_bytes
    return tuple(
        TypeSummary(
            target_type=name,
            tensor_count=counts[name],
            element_count=elements[name],
            size_bytes=size,
        )
        for name, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    )


class MeasuredTask(Protocol):
    """A tensor whose error is known."""

    @property
    def task(self) -> TensorTask: ...
    @property
    def relative_error(self) -> float | None: ...
    @property
    def squared_error(self) -> float: ...
    @property
    def squared_sum(self) -> float: ...


class ErrorSummary:
    """The error of all tensors together, and the worst of them."""

    def __init__(self) -> None:
        self._squared_error = 0.0
        self._squared_sum = 0.0
        self.worst_tensor = ""
        self.worst_relative_error = 0.0

    def add(self, measured: MeasuredTask) -> None:
        """Count a tensor that was rounded; others are passed over."""
        if measured.relative_error is None:
            return
        self._squared_error += measured.squared_error
        self._squared_sum += measured.squared_sum
        if measured.relative_error > self.worst_relative_error:
            self.worst_relative_error = measured.relative_error
            self.worst_tensor = measured.task.target_name

    @property
    def relative_error(self) -> float:
        """sqrt(sum (w - w')^2 / sum w^2) over all of them."""
        return math.sqrt(self._squared_error / self._squared_sum) if self._squared_sum else 0.0
