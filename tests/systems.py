"""Simulated machines below a folder: files of the kernel as real ones have them, and answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quantd_server.host.system import System

GIB = 1 << 30


def write(root: Path, files: Mapping[str, str]) -> Path:
    """``files`` below ``root``."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def no_library() -> Any:
    raise OSError("no such library")


def linux(root: Path, files: Mapping[str, str] | None = None, *, nvml: Any = None) -> System:
    """A Linux machine that has these files and nothing else."""
    write(root, files or {})
    return System(
        name="Linux",
        release="6.12",
        machine="x86_64",
        root=root,
        sysctl=lambda _: {},
        load_nvml=(lambda: nvml) if nvml is not None else no_library,
    )


def mac(root: Path, answers: Mapping[str, str], *, machine: str = "arm64") -> System:
    """A Mac whose sysctl knows these names."""

    def sysctl(names: Sequence[str]) -> dict[str, str]:
        return {name: answers[name] for name in names if name in answers}

    return System(
        name="Darwin",
        release="25.0",
        machine=machine,
        root=root,
        sysctl=sysctl,
        load_nvml=no_library,
    )


def kfd_node(root: Path, number: int, **properties: int) -> None:
    """A node of the topology of AMD's compute driver."""
    lines = "".join(f"{name} {value}\n" for name, value in properties.items())
    write(root, {f"sys/class/kfd/kfd/topology/nodes/{number}/properties": lines})


def mi300x(root: Path) -> System:
    """Two sockets and two MI300X, of which the second has no graphics part of its own."""
    kfd_node(root, 0, cpu_cores_count=96, simd_count=0, gfx_target_version=0)
    kfd_node(root, 1, cpu_cores_count=96, simd_count=0, gfx_target_version=0)
    gpu = {"simd_count": 1216, "gfx_target_version": 90402, "vendor_id": 4098, "device_id": 29857}
    kfd_node(root, 2, **gpu, drm_render_minor=128)
    kfd_node(root, 10, **gpu, drm_render_minor=136)
    bank = "heap_type 1\nsize_in_bytes 206141652992\nflags 0\n"
    return linux(
        root,
        {
            "sys/class/drm/renderD128/device/mem_info_vram_total": "206141652992\n",
            "sys/class/drm/renderD128/device/mem_info_vram_used": "6141652992\n",
            "sys/class/drm/renderD128/device/product_name": "AMD Instinct MI300X OAM\n",
            "sys/class/kfd/kfd/topology/nodes/10/mem_banks/0/properties": bank,
            "sys/module/amdgpu/version": "6.12.12\n",
        },
    )


@dataclasses.dataclass(frozen=True)
class DrmCard:
    """A graphics card as the kernel's class of them shows it."""

    place: str
    """On the PCI bus."""
    vendor: str = "0x8086"
    device: str = "0x56a0"
    driver: str = "xe"
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Further files of the device."""


def drm_cards(root: Path, *cards: DrmCard) -> System:
    """A machine with these cards, numbered from 0; links as in /sys."""
    for number, card in enumerate(cards):
        device = root / "sys/devices/pci0000:00" / card.place
        write(device, {"vendor": card.vendor, "device": card.device, **card.files})
        driver = root / "sys/bus/pci/drivers" / card.driver
        driver.mkdir(parents=True, exist_ok=True)
        (device / "driver").symlink_to(driver)
        shown = root / "sys/class/drm" / f"card{number}"
        shown.mkdir(parents=True)
        (shown / "device").symlink_to(device)
        (root / "sys/class/drm" / f"card{number}-DP-1").mkdir()  # a connector, no card
    return linux(root)
