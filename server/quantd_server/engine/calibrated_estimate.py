"""How much memory a job takes that runs the model, from its plan (no torch).

The walk's own share is ``calibration.memory``; here is what solving adds to it. Measured on Linux
x86-64 with torch 2.13: ``python -m bench calibrated`` prints the estimate beside what it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from quantd_server.calibration.config import CalibrationUsage
from quantd_server.calibration.memory import (
    ACTIVATION_BYTES,
    evaluation_memory_bytes,
    tuning_activation_bytes,
    walk_memory_bytes,
)
from quantd_server.methods.base import TensorTask

SOLVER_BYTES = 110_000_000
"""numba, and compiled kernels."""

FLOAT32 = 4


def calibrated_peak_bytes(
    tasks: Iterable[TensorTask], usage: CalibrationUsage, tuning_bytes: int
) -> int:
    """Estimated largest resident memory of the worker; 0 if no task belongs to a block.

    ``tuning_bytes``: as in ``WorkPlan``.
    """
    tasks = list(tasks)
    linears, stored = _largest_block(tasks)
    if not linears:
        return 0
    activations = min(ACTIVATION_BYTES, _activation_bytes(linears, usage.tokens, tuning_bytes))
    walk = walk_memory_bytes(
        linears=linears,
        block_bytes=stored,
        sequence_length=_length(usage),
        hidden=_hidden(linears),
        # Once more for what the allocator keeps of those that were freed: they come and go.
        budget_bytes=2 * activations,
    )
    held = max(task.held_bytes for task in tasks if task.block is not None)
    if tuning_bytes:
        tuning = tuning_bytes + tuning_activation_bytes(
            linears=linears, sequence_length=_length(usage), hidden=_hidden(linears)
        )
        held = max(held, tuning)
    return walk + SOLVER_BYTES + held + _result_bytes(tasks)


def evaluation_peak_bytes(tasks: Iterable[TensorTask], usage: CalibrationUsage) -> int:
    """Estimated largest resident memory while a result is measured; 0 as above.

    ``usage``: of the text to measure on.
    """
    linears, stored = _largest_block(tasks)
    if not linears:
        return 0
    hidden = _hidden(linears)
    activations = min(ACTIVATION_BYTES, 2 * usage.tokens * FLOAT32 * hidden)
    return SOLVER_BYTES + evaluation_memory_bytes(
        linears=linears,
        block_bytes=stored,
        sequence_length=_length(usage),
        hidden=hidden,
        budget_bytes=2 * activations,
    )


def spilled_bytes(tasks: Iterable[TensorTask], usage: CalibrationUsage, tuning_bytes: int) -> int:
    """Disk that activations take beyond the memory for them."""
    linears, _ = _largest_block(tasks)
    if not linears:
        return 0
    stored = _activation_bytes(linears, usage.tokens, tuning_bytes)
    return max(0, stored - ACTIVATION_BYTES)


def _length(usage: CalibrationUsage) -> int:
    """Of a sequence, in tokens."""
    return -(-usage.tokens // max(1, usage.samples_usable))


def checkpoint_bytes(tasks: Iterable[TensorTask], usage: CalibrationUsage) -> int:
    """Disk that hidden states take which a job could go on with (``engine.solved_blocks``): those
    after a block, and those of the checkpoint before while they are written.
    """
    linears, _ = _largest_block(tasks)
    return 2 * FLOAT32 * usage.tokens * _hidden(linears) if linears else 0


def _largest_block(tasks: Iterable[TensorTask]) -> tuple[Mapping[str, tuple[int, int]], int]:
    """Shapes of the linears of the block that takes most, by name, and its bytes in the source."""
    linears: dict[int, dict[str, tuple[int, int]]] = defaultdict(dict)
    stored: dict[int, int] = defaultdict(int)
    for task in tasks:
        if task.block is None or task.source is None:
            continue
        stored[task.block] += task.source_bytes
        if task.action == "QUANTIZE":
            rows, columns = task.target_shape
            linears[task.block][task.source.name] = (rows, columns)
    if not linears:
        return {}, 0
    largest = max(linears, key=lambda block: stored[block])
    return linears[largest], stored[largest]


def _hidden(linears: Mapping[str, tuple[int, int]]) -> int:
    """Width of the hidden states: what the first linear of a block sees."""
    return next(iter(linears.values()))[1]


def _activation_bytes(
    linears: Mapping[str, tuple[int, int]], tokens: int, tuning_bytes: int
) -> int:
    """All that a walk keeps between passes: states, inputs of a stage, outputs of two; and the
    outputs of the original block where it is tuned.
    """
    outputs = sorted((rows for rows, _ in linears.values()), reverse=True)[:3]
    inputs = max(columns for _, columns in linears.values())
    states = _hidden(linears) * (2 if tuning_bytes else 1)
    return tokens * (FLOAT32 * (states + sum(outputs)) + 2 * inputs)


def _result_bytes(tasks: Iterable[TensorTask]) -> int:
    """What is kept of a block until it is written, and of one weight before it is packed."""
    of_block: dict[int, int] = defaultdict(int)
    largest = 0
    for task in tasks:
        if task.block is not None and task.action == "QUANTIZE":
            of_block[task.block] += task.target_bytes
            largest = max(largest, task.element_count)
    return max(of_block.values(), default=0) + largest
