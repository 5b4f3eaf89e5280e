"""The sizes that bound the pipeline's memory."""

from __future__ import annotations

CHUNK_ELEMENTS = 1 << 20
"""Elements of a tensor that are read, quantized and written together: 4 MB as float32, which
stays in the caches, and thousands of rows or blocks, which hides the cost of a call."""


def chunks_in_flight(threads: int) -> int:
    """Chunks that are being worked on or about to be: one a thread and one waiting for each."""
    return 2 * threads
