"""Devices that can compute: the CPU, and the GPUs that drivers tell about."""

from __future__ import annotations

import msgspec

from quantd_server.host import amd, intel, nvidia
from quantd_server.host.cpu import Cpu
from quantd_server.host.device import Device, DeviceKind
from quantd_server.host.memory import Memory
from quantd_server.host.system import System

__all__ = ["Device", "DeviceKind", "describe_devices"]


def describe_devices(system: System, cpu: Cpu, memory: Memory) -> tuple[Device, ...]:
    """The CPU first, then the GPUs."""
    total = min(memory.total, memory.limit) if memory.limit else memory.total
    processor = Device(
        kind="CPU",
        index=0,
        name=cpu.model,
        memory_total_bytes=total,
        memory_free_bytes=min(memory.available, total),
    )
    if system.is_apple_silicon:
        # Its GPU is part of the processor and shares the memory.
        return (processor, msgspec.structs.replace(processor, kind="MPS"))
    return (
        processor,
        *nvidia.cuda_devices(system),
        *amd.rocm_devices(system.root),
        *intel.xpu_devices(system.root),
    )
