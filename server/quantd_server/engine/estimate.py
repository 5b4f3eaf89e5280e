"""How much memory a job takes, from its plan.

A model of what the worker holds, with parts that were measured (Linux x86-64, Python 3.11, numba
0.66; ``python -m bench quantize`` prints the estimate beside what it turned out to be). It is meant
to be at least what is used and at most a third more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from quantd_server.engine.needed_kernels import (
    COMPUTED,
    FLOAT_BYTES,
    cache_folder,
    samples,
    uncompiled,
)
from quantd_server.engine.pipeline_sizes import CHUNK_ELEMENTS
from quantd_server.methods.base import TensorTask, WorkPlan

WORKER_BYTES = 176_000_000
"""The interpreter with numpy, numba and llvmlite, and compiled kernels loaded: 158 MB measured."""

HEADER_COPIES = 7
"""What making the plan again takes, in sizes of the headers: vocabularies are lists of strings."""

TASK_BYTES = 4096
"""A tensor's task, its parts and its outcome."""

WORKSPACE_BYTES = 4
"""An element's share of what a quantizer allocates besides its result, such as magnitudes."""

CAST_WORKSPACE_BYTES = 8
"""The same of a float cast: the values read back, and where their error is summed."""

COMPILING_BYTES = 370_000_000
"""The waiting worker and the process that compiles, together, without any kernel."""

KERNEL_BYTES = 14_000_000
"""What a compiler keeps of compiling the kernels of one kind of work: 5 to 17 MB."""


def peak_memory_bytes(work: WorkPlan, threads: int, device: str) -> int:
    """Estimated largest resident memory of the worker, and of the process that compiles kernels
    for it if some are not compiled yet (see ``compiling``).
    """
    needed = samples(work.tasks)
    missing = uncompiled(needed, device)
    # What is solved with its block is not in the pipeline; see ``calibrated_estimate``.
    piped = [task for task in work.tasks if task.block is None]
    quantizing = WORKER_BYTES + _plan_bytes(work) + _pipeline_bytes(piped, threads)
    if missing and cache_folder() is None:  # compiled in the worker, in every job
        return quantizing + missing * KERNEL_BYTES
    compiling = COMPILING_BYTES + missing * KERNEL_BYTES + _plan_bytes(work) if missing else 0
    return max(quantizing, compiling)


def _plan_bytes(work: WorkPlan) -> int:
    headers = sum(len(file.header) for file in work.files)
    importance = sum(len(task.importance) for task in work.tasks)
    return HEADER_COPIES * headers + 2 * importance + TASK_BYTES * len(work.tasks)


def _pipeline_bytes(tasks: Sequence[TensorTask], threads: int) -> int:
    """A chunk for every thread, and what is held of tensors of which a part is done."""
    chunk = max(map(_chunk_bytes, tasks), default=0)
    # One tensor is being finished while the next one is begun.
    held = 2 * max((task.held_bytes for task in tasks), default=0)
    return threads * chunk + held


def _chunk_bytes(task: TensorTask) -> int:
    """What a thread allocates for a chunk: as read, as float32, transformed, and quantized."""
    if task.source is None or not task.parts or not task.element_count:
        return 0
    elements = min(task.element_count, max(CHUNK_ELEMENTS, _indivisible_elements(task)))
    if task.action not in COMPUTED:
        width = 4 if task.source.dtype in FLOAT_BYTES else 0
        return elements * width + elements * task.source_bytes // task.element_count
    width = FLOAT_BYTES.get(task.source.dtype, 4) + 4
    width += 4 if task.transform in ("permute_heads", "transpose") else 0
    width += CAST_WORKSPACE_BYTES if task.target_type in FLOAT_BYTES else WORKSPACE_BYTES
    return elements * width + elements * task.target_bytes // task.element_count


def _indivisible_elements(task: TensorTask) -> int:
    """What a transform needs at once; see ``chunks.split``."""
    match task.transform:
        case "transpose":
            return task.element_count
        case "permute_heads":
            return math.ceil(task.element_count / task.head_count)
        case _:
            return 1
