"""Main memory: how much there is, how much is left, how much this process may take."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from quantd_server.host import cgroup
from quantd_server.host.system import System, read_text

APPLE_TOTAL = "hw.memsize"
APPLE_FREE_PERCENT = "kern.memorystatus_level"
"""What the kernel's memory pressure is judged by; caches that it can drop count as free."""


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Main memory in bytes."""

    total: int
    available: int
    """What can be taken now without swapping and below the control group's limit; the total where
    the system does not tell it."""
    limit: int
    """Limit of the control group; 0 when there is none."""


def describe_memory(system: System) -> Memory:
    """Memory as it is now."""
    if system.name == "Darwin":
        return _apple(system)
    entries = _meminfo(read_text(system.root / "proc/meminfo"))
    total = entries.get("MemTotal") or _physical_memory()
    available, left = entries.get("MemAvailable", total), cgroup.memory_left(system.root)
    return Memory(
        total=total,
        available=available if left is None else min(available, left),
        limit=cgroup.memory_limit(system.root),
    )


def resident_bytes(root: Path, pid: int) -> int | None:
    """Resident memory of a process below /proc; None where it cannot be told."""
    fields = read_text(root / f"proc/{pid}/statm").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 else None


def _meminfo(text: str) -> dict[str, int]:
    """The entries in bytes."""
    entries = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        number, _, unit = value.strip().partition(" ")
        if number.isdecimal():
            entries[key] = int(number) * (1024 if unit == "kB" else 1)
    return entries


def _apple(system: System) -> Memory:
    answers = system.sysctl([APPLE_TOTAL, APPLE_FREE_PERCENT])
    memsize, percent = answers.get(APPLE_TOTAL, ""), answers.get(APPLE_FREE_PERCENT, "")
    total = int(memsize) if memsize.isdecimal() else _physical_memory()
    free = min(int(percent), 100) if percent.isdecimal() else 100
    return Memory(total=total, available=total * free // 100, limit=0)


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 0
