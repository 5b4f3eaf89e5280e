"""The host as one value: what decides here takes it as an argument and asks the system nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterable

import msgspec

from quantd_server.host.cpu import Cpu, describe_cpu
from quantd_server.host.devices import Device, describe_devices
from quantd_server.host.memory import Memory, describe_memory
from quantd_server.host.packages import Package, describe_packages
from quantd_server.host.system import System, this_system
from quantd_server.host.torch_build import TorchBuild


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
    torch: TorchBuild | None = None
    """What torch told of itself; None while it was not asked."""

    def version_of(self, package: str) -> str:
        """Version of an installed package; empty when it is not installed or was not asked for."""
        return next((found.version for found in self.packages if found.name == package), "")

    def devices_of(self, *kinds: str) -> tuple[Device, ...]:
        """The devices of these kinds."""
        return tuple(device for device in self.devices if device.kind in kinds)


def describe(
    packages: Iterable[str] = (), programs: Iterable[str] = (), system: System | None = None
) -> Host:
    """A host, this one by default, with what is known about these packages and programs."""
    system = system or this_system()
    cpu, memory = describe_cpu(system), describe_memory(system)
    return Host(
        operating_system=f"{system.name} {system.release}",
        cpu=cpu,
        memory=memory,
        devices=describe_devices(system, cpu, memory),
        packages=describe_packages(tuple(packages)),
        programs=tuple(name for name in programs if shutil.which(name)),
    )


def refresh(host: Host, system: System | None = None) -> Host:
    """The same host with its memory and devices as they are now; asks the driver of each GPU."""
    system = system or this_system()
    memory = describe_memory(system)
    devices = describe_devices(system, host.cpu, memory)
    return msgspec.structs.replace(host, memory=memory, devices=devices)
