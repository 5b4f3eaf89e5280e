"""NVIDIA GPUs, as their driver lists them."""

from __future__ import annotations

from quantd_server.host import nvml
from quantd_server.host.device import Device
from quantd_server.host.system import System


def cuda_devices(system: System) -> tuple[Device, ...]:
    """GPUs that the driver lists; empty without one."""
    with nvml.session(system.load_nvml) as session:
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
