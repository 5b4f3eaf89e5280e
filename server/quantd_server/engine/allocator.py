"""What the C library does with freed memory, where it can be told (glibc), for calibrated jobs.

Tensors of all sizes come and go here. By default glibc learns from the first large tensor that is
freed to take others of its size from the heap, too, which the long-lived small ones between them
keep from shrinking: over the blocks of a model with 1.07 B parameters it grew by a sixth.
"""

from __future__ import annotations

import contextlib
import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h

LARGE_BYTES = 16 << 20
"""Memory of its own, returned when it is freed. Fresh memory costs time, so not for less."""

SPARE_BYTES = 64 << 20
"""Of the heap's end; kept for the next tensors."""


def separate_large_tensors() -> None:
    """Let every large tensor have memory of its own."""
    # Another C library has no mallopt, or ignores it.
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, SPARE_BYTES)


def return_free_memory() -> None:
    """Give pages of the heap in which nothing is left back to the system."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
