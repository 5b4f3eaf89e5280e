"""Resident memory of processes, in bytes."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_UNIT = 1 if sys.platform == "darwin" else 1024
"""Of ``ru_maxrss`` (getrusage(2))."""


def largest_bytes(usage: resource.struct_rusage | None = None) -> int:
    """The most that a process ever had, by its usage; this process without one."""
    return (usage or resource.getrusage(resource.RUSAGE_SELF)).ru_maxrss * _UNIT


def current_bytes() -> int:
    """What this process has now, or the most it ever had where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return largest_bytes()
    return pages * resource.getpagesize()
