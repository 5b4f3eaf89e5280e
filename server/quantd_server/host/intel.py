"""Intel GPUs with memory of their own, as the kernel's xe and i915 drivers describe them.

No file of theirs tells how much of it is in use.
"""

from __future__ import annotations

import re
from pathlib import Path

from quantd_server.host.device import Device
from quantd_server.host.pci import bar_size, product_name
from quantd_server.host.system import read_number

VENDOR = 0x8086
DRIVERS = ("xe", "i915")
INTEGRATED = "0000:00:02.0"
"""Where the graphics of a processor always are; its memory is the host's."""
MEMORY_BAR = 2
"""The window into the card's memory: all of it where the firmware can resize windows."""


def xpu_devices(root: Path) -> tuple[Device, ...]:
    """Cards with memory of their own, in the order of their places on the bus."""
    cards = {
        card.name: (card / "device").resolve()
        for card in (root / "sys/class/drm").glob("card*")
        if re.fullmatch(r"card\d+", card.name) and _is_card(card / "device")
    }
    ordered = sorted(cards.items(), key=lambda item: item[1].name)
    return tuple(
        _describe(root, root / "sys/class/drm" / name, index)
        for index, (name, _) in enumerate(ordered)
    )


def _is_card(device: Path) -> bool:
    return (
        read_number(device / "vendor") == VENDOR
        and (device / "driver").resolve().name in DRIVERS
        and device.resolve().name != INTEGRATED
    )


def _describe(root: Path, card: Path, index: int) -> Device:
    device = card / "device"
    memory = _memory(card)
    number = read_number(device / "device")
    return Device(
        kind="XPU",
        index=index,
        name=product_name(root, VENDOR, number) or f"Intel GPU {number:04x}",
        memory_total_bytes=memory,
        memory_free_bytes=memory,
    )


def _memory(card: Path) -> int:
    """Bytes on the card: xe tells them by tile, Intel's own builds of i915 in one file."""
    device = card / "device"
    tiles = sum(map(read_number, device.glob("tile*/physical_vram_size_bytes")))
    return tiles or read_number(card / "lmem_total_bytes") or bar_size(device, MEMORY_BAR)
