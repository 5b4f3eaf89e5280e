"""How much memory a job takes that runs the model, from its plan (no torch).

The walk's own share is ``calibration.memory``; here is what solving adds to it. Measured on Linux
x86-64 with torch 2.13: ``python -m bench calibrated`` prints the estimate beside what it was.
"""

from __future__ import annotations

import re
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
BFLOAT16 = 2

MOST_EXPERTS = 8
"""That see one token, as a rule: what a plan knows of a model does not tell."""

_EXPERT = re.compile(r"\.experts\.\d+\.")
_CHILD_OF_BLOCK = re.compile(r"\A\D+\.\d+\.[^.]+\.weight\Z")


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
    activations = min(ACTIVATION_BYTES, activation_bytes(linears, usage.tokens, tuning_bytes))
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
    stored = activation_bytes(linears, usage.tokens, tuning_bytes)
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


def activation_bytes(
    linears: Mapping[str, tuple[int, int]], tokens: int, tuning_bytes: int = 0
) -> int:
    """Estimate of all that a walk keeps between passes of a block, in memory and on disk.

    Hidden states and what attention returned, float32; of linears that lie in the block itself, not
    in a module of their own, the results, too; the inputs of a stage, bfloat16, of all stages where
    there is only one; and the outputs of the original block where it is tuned.
    """
    hidden = _hidden(linears)
    states = 2 * hidden + sum(rows for name, (rows, _) in linears.items() if _is_alone(name))
    if tuning_bytes:
        states += hidden
    inputs = max(columns for _, columns in linears.values()) + 3 * hidden
    experts = {found[0] for name in linears if (found := _EXPERT.search(name))}
    inputs += hidden * min(len(experts), MOST_EXPERTS)
    return tokens * (FLOAT32 * states + BFLOAT16 * inputs)


def _is_alone(name: str) -> bool:
    """Whether a linear, such as "model.decoder.layers.0.fc1.weight", is a child of its block."""
    return bool(_CHILD_OF_BLOCK.match(name))


def _result_bytes(tasks: Iterable[TensorTask]) -> int:
    """What is kept of a block until it is written, and of one weight before it is packed."""
    of_block: dict[int, int] = defaultdict(int)
    largest = 0
    for task in tasks:
        if task.block is not None and task.action == "QUANTIZE":
            of_block[task.block] += task.target_bytes
            largest = max(largest, task.element_count)
    return max(of_block.values(), default=0) + largest
