"""Devices that can compute: the CPU, NVIDIA GPUs as their driver describes them, Apple's GPU."""

from __future__ import annotations

from typing import Literal

import msgspec

from quantd_server.host import nvml
from quantd_server.host.cpu import Cpu
from quantd_server.host.memory import Memory

DeviceKind = Literal["CPU", "CUDA", "MPS"]


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One device; field names are those of `Device` in the spec."""

    kind: DeviceKind
    index: int
    name: str
    compute_capability: str = ""
    memory_total_bytes: int
    memory_free_bytes: int
    driver_version: str = ""


def describe_devices(operating_system: str, cpu: Cpu, memory: Memory) -> tuple[Device, ...]:
    """The CPU first, then the GPUs."""
    total = min(memory.total, memory.limit) if memory.limit else memory.total
    processor = Device(
        kind="CPU",
        index=0,
        name=cpu.model,
        memory_total_bytes=total,
        memory_free_bytes=min(memory.available, total),
    )
    if operating_system.startswith("Darwin") and cpu.machine == "arm64":
        # Its GPU is part of the processor and shares the memory.
        return (processor, msgspec.structs.replace(processor, kind="MPS"))
    return (processor, *cuda_devices())


def cuda_devices() -> tuple[Device, ...]:
    """GPUs that the NVIDIA driver lists; empty without one."""
    with nvml.session() as session:
        if session is None:
            return ()
        try:
            driver = session.driver_version()
            devices = [_describe(session, index, driver) for index in range(session.device_count())]
        except nvml.NvmlError:
            return ()
    return tuple(device for device in devices if device is not None)


def _describe(session: nvml.Nvml, index: int, driver: str) -> Device | None:
    """One GPU; None when it does not answer (fallen off the bus, no permission)."""
    try:
        handle = session.device(index)
        memory = session.memory(handle)
        major, minor = session.compute_capability(handle)
        name = session.name(handle)
    except nvml.NvmlError:
        return None
    return Device(
        kind="CUDA",
        index=index,
        name=name,
        compute_capability=f"{major}.{minor}",
        memory_total_bytes=memory.total,
        memory_free_bytes=memory.free,
        driver_version=driver,
    )
