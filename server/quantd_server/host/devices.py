"""Devices that can compute: the CPU, then NVIDIA GPUs as their driver describes them.

The driver is asked through NVML (package nvidia-ml-py, module ``pynvml``), which needs no CUDA
context: torch would take hundreds of megabytes for the same answer.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from quantd_server.host.cpu import Cpu
from quantd_server.host.memory import Memory

DeviceKind = Literal["CPU", "CUDA"]


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One device; field names are those of `Device` in the spec."""

    kind: DeviceKind
    index: int
    name: str
    compute_capability: str = ""
    memory_total_bytes: int
    memory_free_bytes: int
    driver_version: str = ""


def describe_devices(cpu: Cpu, memory: Memory) -> tuple[Device, ...]:
    """The CPU first, then the GPUs."""
    total = min(memory.total, memory.limit) if memory.limit else memory.total
    processor = Device(
        kind="CPU",
        index=0,
        name=cpu.model,
        memory_total_bytes=total,
        memory_free_bytes=min(memory.available, total),
    )
    return (processor, *cuda_devices())


def cuda_devices() -> tuple[Device, ...]:
    """GPUs that the NVIDIA driver lists; empty without a driver or without nvidia-ml-py."""
    try:
        import pynvml  # type: ignore[import-untyped]
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        devices = (_describe(pynvml, index, driver) for index in range(pynvml.nvmlDeviceGetCount()))
        return tuple(device for device in devices if device is not None)
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def _describe(nvml: Any, index: int, driver: str) -> Device | None:
    """One GPU; None when it does not answer (fallen off the bus, no permission)."""
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        name = _text(nvml.nvmlDeviceGetName(handle))
    except nvml.NVMLError:
        return None
    return Device(
        kind="CUDA",
        index=index,
        name=name,
        compute_capability=f"{major}.{minor}",
        memory_total_bytes=int(memory.total),
        memory_free_bytes=int(memory.free),
        driver_version=driver,
    )


def _text(value: str | bytes) -> str:
    # Versions of the binding before 11.5 answer in bytes.
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
