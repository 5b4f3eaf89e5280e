"""Devices on the PCI bus: names from the system's list of them, sizes of their windows."""

from __future__ import annotations

import functools
from pathlib import Path

from quantd_server.host.system import read_text

LISTS = ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids")
"""Where distributions keep the list of the PCI ID project."""


@functools.cache
def product_name(root: Path, vendor: int, device: int) -> str:
    """What the list calls a device; empty without a list or an entry."""
    for place in LISTS:
        lines = iter(read_text(root / place).splitlines())
        for line in lines:
            if line.startswith(f"{vendor:04x} "):
                break
        for line in lines:
            if not line.startswith(("\t", "#")):  # the next vendor
                break
            if line.startswith(f"\t{device:04x} "):
                return line.split(maxsplit=1)[1].strip()
    return ""


def bar_size(device: Path, number: int) -> int:
    """Bytes of a device's window ``number``; 0 when it has none.

    Each line of the kernel's file is the first and the last address of a window, and its flags.
    """
    lines = read_text(device / "resource").splitlines()
    try:
        first, last, _ = (int(part, 16) for part in lines[number].split())
    except (ValueError, IndexError):
        return 0
    return last - first + 1 if last > first else 0
