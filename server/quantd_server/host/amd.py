"""AMD GPUs that ROCm can compute on, as the kernel's amdgpu driver describes them.

The topology of its compute part (/sys/class/kfd) lists what ROCm will enumerate, in that order;
the memory in use is told by the graphics part (/sys/class/drm). Documented in the kernel's
Documentation/gpu/amdgpu and include/uapi/linux/kfd_sysfs.h.
"""

from __future__ import annotations

from pathlib import Path

from quantd_server.host.device import Device
from quantd_server.host.pci import product_name
from quantd_server.host.system import read_number, read_text

NODES = "sys/class/kfd/kfd/topology/nodes"
LOCAL_MEMORY = (1, 2)
"""HSA_MEM_HEAP_TYPE_FB_PUBLIC and _PRIVATE: heaps of a memory bank on the card."""


def rocm_devices(root: Path) -> tuple[Device, ...]:
    """GPUs of all nodes that this process may see."""
    nodes = [(int(node.name), node) for node in (root / NODES).glob("*") if node.name.isdecimal()]
    found = ((node, _properties(node)) for _, node in sorted(nodes))
    # Processors are nodes too, without a GPU's target; a node of another container is not readable.
    gpus = [(node, properties) for node, properties in found if _target(properties)]
    return tuple(
        _describe(root, node, properties, index) for index, (node, properties) in enumerate(gpus)
    )


def _describe(root: Path, node: Path, properties: dict[str, int], index: int) -> Device:
    render = root / "sys/class/drm" / f"renderD{properties.get('drm_render_minor', 0)}" / "device"
    total = read_number(render / "mem_info_vram_total") or _banks(node)
    used = read_number(render / "mem_info_vram_used")
    architecture = _target(properties)
    return Device(
        kind="ROCM",
        index=index,
        name=read_text(render / "product_name")
        or product_name(root, properties.get("vendor_id", 0), properties.get("device_id", 0))
        or f"AMD {architecture}",
        architecture=architecture,
        memory_total_bytes=total,
        memory_free_bytes=max(0, total - used),
        driver_version=read_text(root / "sys/module/amdgpu/version"),
    )


def _target(properties: dict[str, int]) -> str:
    """The compiler's name of the architecture: 90402 is "gfx942", 90010 is "gfx90a"."""
    version = properties.get("gfx_target_version", 0)
    major, minor, stepping = version // 10_000, version // 100 % 100, version % 100
    return f"gfx{major}{minor:x}{stepping:x}" if version > 0 else ""


def _banks(node: Path) -> int:
    """Bytes of the memory on the card, for partitions without a graphics part of their own."""
    banks = map(_properties, (node / "mem_banks").glob("*"))
    return sum(
        bank.get("size_in_bytes", 0) for bank in banks if bank.get("heap_type") in LOCAL_MEMORY
    )


def _properties(folder: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    pairs = (line.split() for line in read_text(folder / "properties").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
