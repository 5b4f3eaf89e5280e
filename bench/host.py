"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe() -> str:
    """Processor, cores that this process may use, memory and versions, in one line."""
    cores = len(os.sched_getaffinity(0))
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (
        f"{processor()}, {cores} cores, {total / 2**30:.0f} GiB; "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )


def processor() -> str:
    """Name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def read_all(folder: Path) -> None:
    """Reads the files of a folder, so that every run that follows finds them cached."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(1 << 20):
                    pass
