"""How much memory a job takes, from its plan."""

from __future__ import annotations

from quantd_server.engine.pipeline_sizes import CHUNK_ELEMENTS, chunks_in_flight
from quantd_server.methods.base import WorkPlan

BASE_BYTES = 260 << 20
"""The interpreter with numpy, numba and its compiler, measured after the first kernel compiled."""

BYTES_PER_ELEMENT = 12
"""Of a chunk in flight: at most 4 as read, 4 as float32, and 4 for what is written."""


def peak_memory_bytes(work: WorkPlan, threads: int) -> int:
    """Estimated largest resident memory of the worker."""
    chunks = chunks_in_flight(threads) * CHUNK_ELEMENTS * BYTES_PER_ELEMENT
    headers = 4 * sum(len(file.header) for file in work.files)
    # What is kept until a tensor is complete: its side tensors (scales), which are small.
    pending = max((sum(part.nbytes for part in task.parts[1:]) for task in work.tasks), default=0)
    return BASE_BYTES + chunks + headers + 2 * pending + 2048 * len(work.tasks)
