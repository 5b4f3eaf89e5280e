"""The host as one value: what decides here takes it as an argument and asks the system nothing."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterable

import msgspec

from quantd_server.host.cpu import Cpu, describe_cpu
from quantd_server.host.devices import Device, describe_devices
from quantd_server.host.memory import Memory, describe_memory
from quantd_server.host.packages import Package, describe_packages


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """Processor, memory, devices and software of one machine at one moment."""

    operating_system: str
    """Name and release, such as "Linux 6.12"."""
    cpu: Cpu
    memory: Memory
    devices: tuple[Device, ...]
    """The CPU first."""
    packages: tuple[Package, ...] = ()
    """Those that were asked about, installed or not."""
    programs: tuple[str, ...] = ()
    """Those that were asked about and are on the search path."""

    def version_of(self, package: str) -> str:
        """Version of an installed package; empty when it is not installed or was not asked for."""
        return next((found.version for found in self.packages if found.name == package), "")

    def devices_of(self, *kinds: str) -> tuple[Device, ...]:
        """The devices of these kinds."""
        return tuple(device for device in self.devices if device.kind in kinds)


def describe(packages: Iterable[str] = (), programs: Iterable[str] = ()) -> Host:
    """This host, with what is known about these packages and programs."""
    operating_system = f"{platform.system()} {platform.release()}"
    cpu, memory = describe_cpu(), describe_memory()
    return Host(
        operating_system=operating_system,
        cpu=cpu,
        memory=memory,
        devices=describe_devices(operating_system, cpu, memory),
        packages=describe_packages(tuple(packages)),
        programs=tuple(name for name in programs if shutil.which(name)),
    )


def refresh(host: Host) -> Host:
    """The same host with its memory and devices as they are now; asks the driver of each GPU."""
    memory = describe_memory()
    devices = describe_devices(host.operating_system, host.cpu, memory)
    return msgspec.structs.replace(host, memory=memory, devices=devices)
