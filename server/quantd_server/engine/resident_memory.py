"""Resident memory of processes, in bytes."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_UNIT = 1 if sys.platform == "darwin" else 1024
"""Of ``ru_maxrss`` (getrusage(2))."""


def largest_bytes(usage: resource.struct_rusage | None = None) -> int:
    """The most that a process ever had, by its usage; this process without one."""
    if usage is not None:
        return usage.ru_maxrss * _UNIT
    try:
        # Linux counts what the parent had into ru_maxrss (execve(2) keeps it), but not into this.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT


def current_bytes() -> int:
    """What this process has now, or the most it ever had where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return largest_bytes()
    return pages * resource.getpagesize()
