"""Main memory: how much there is, how much is left, how much this process may take."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from quantd_server.host import cgroup

MEMINFO = Path("/proc/meminfo")


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Main memory in bytes."""

    total: int
    available: int
    """What can be taken now without swapping; the total where the system does not tell it."""
    limit: int
    """Limit of the control group; 0 when there is none."""


def describe_memory(meminfo: Path = MEMINFO, root: Path = cgroup.SYSTEM_ROOT) -> Memory:
    """Memory as it is now."""
    entries = _read_meminfo(meminfo)
    total = entries.get("MemTotal") or _physical_memory()
    return Memory(
        total=total,
        available=entries.get("MemAvailable", total),
        limit=cgroup.memory_limit(root),
    )


def _read_meminfo(path: Path) -> dict[str, int]:
    """The entries in bytes; empty where there is no such file."""
    entries = {}
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        number, _, unit = value.strip().partition(" ")
        if number.isdecimal():
            entries[key] = int(number) * (1024 if unit == "kB" else 1)
    return entries


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 0
