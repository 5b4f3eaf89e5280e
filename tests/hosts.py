"""Simulated hosts: what planning, capabilities and assessments are tested on."""

from __future__ import annotations

import msgspec

from quantd_server.host.cpu import Cpu
from quantd_server.host.description import Host
from quantd_server.host.device import Device, DeviceKind
from quantd_server.host.memory import Memory
from quantd_server.host.packages import Package
from quantd_server.host.torch_build import TorchBuild
from quantd_server.planning.load_requirements import LLAMA_CPP_PROGRAMS, PACKAGES

GIB = 1 << 30


CUDA_BUILD = TorchBuild(
    version="99.0+cu130",
    cuda_version="13.0",
    architectures=("sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_120"),
    built_for=("CPU", "CUDA"),
    devices=("CPU", "CUDA"),
    bitsandbytes_devices=("CUDA",),
)
CPU_BUILD = TorchBuild(version="99.0+cpu", built_for=("CPU",), devices=("CPU",))
ROCM_BUILD = TorchBuild(
    version="99.0+rocm7.1",
    hip_version="7.1.25",
    architectures=("gfx90a", "gfx942", "gfx1100"),
    built_for=("CPU", "ROCM"),
    devices=("CPU", "ROCM"),
    bitsandbytes_devices=("ROCM",),
)
XPU_BUILD = TorchBuild(
    version="99.0+xpu",
    built_for=("CPU", "XPU"),
    devices=("CPU", "XPU"),
    bitsandbytes_devices=("XPU",),
)
MPS_BUILD = TorchBuild(version="99.0", built_for=("CPU", "MPS"), devices=("CPU", "MPS"))


def _card(
    name: str,
    capability: str,
    memory: int,
    *,
    index: int = 0,
    kind: DeviceKind = "CUDA",
    architecture: str = "",
) -> Device:
    return Device(
        kind=kind,
        index=index,
        name=name,
        compute_capability=capability,
        architecture=architecture,
        memory_total_bytes=memory,
        memory_free_bytes=memory - GIB // 2,
        driver_version="580.95.05" if kind == "CUDA" else "",
    )


def _host(
    *cards: Device,
    memory: int,
    torch: TorchBuild = CUDA_BUILD,
    system: str = "Linux 6.12",
    machine: str = "x86_64",
) -> Host:
    processor = _card("processor", "", memory, kind="CPU")
    return Host(
        operating_system=system,
        cpu=Cpu(model="processor", machine=machine, usable_cores=4, features=()),
        memory=Memory(total=memory, available=memory - GIB // 2, limit=0),
        devices=(processor, *cards),
        packages=tuple(Package(name=name, version="99.0") for name in PACKAGES),
        programs=LLAMA_CPP_PROGRAMS,
        torch=torch,
    )


NO_GPU = _host(memory=32 * GIB, torch=CPU_BUILD)
T4 = _host(_card("Tesla T4", "7.5", 8 * GIB), memory=16 * GIB)
"""As it is often rented: half of the card."""
V100 = _host(_card("Tesla V100", "7.0", 16 * GIB), memory=64 * GIB)
H100 = _host(_card("NVIDIA H100", "9.0", 80 * GIB), memory=256 * GIB)
TWO_H100 = _host(
    _card("NVIDIA H100", "9.0", 80 * GIB),
    _card("NVIDIA H100", "9.0", 80 * GIB, index=1),
    memory=256 * GIB,
)
MI300X = _host(
    _card("AMD Instinct MI300X", "", 192 * GIB, kind="ROCM", architecture="gfx942"),
    memory=512 * GIB,
    torch=ROCM_BUILD,
)
ARC = _host(_card("Intel Arc A770", "", 16 * GIB, kind="XPU"), memory=64 * GIB, torch=XPU_BUILD)
APPLE = _host(
    _card("Apple M4", "", 24 * GIB, kind="MPS"),
    memory=24 * GIB,
    torch=MPS_BUILD,
    system="Darwin 25.0",
    machine="arm64",
)


def with_torch(host: Host, torch: TorchBuild | None) -> Host:
    """``host`` with another torch; None for one that was not asked yet."""
    return msgspec.structs.replace(host, torch=torch)


def with_packages(host: Host, **versions: str) -> Host:
    """``host`` with other versions of some packages, "" for not installed; "-" is written "_"."""
    changed = {name.replace("_", "-"): version for name, version in versions.items()}
    packages = tuple(
        Package(name=package.name, version=changed.pop(package.name, package.version))
        for package in host.packages
    )
    assert not changed, f"not among the packages asked about: {changed}"
    return msgspec.structs.replace(host, packages=packages)


def bare(host: Host) -> Host:
    """``host`` with nothing installed."""
    packages = tuple(Package(name=package.name, version="") for package in host.packages)
    return msgspec.structs.replace(host, packages=packages, programs=())


def with_free_memory(host: Host, free: int) -> Host:
    """``host`` with ``free`` bytes left on every device."""
    return msgspec.structs.replace(
        host,
        devices=tuple(
            msgspec.structs.replace(device, memory_free_bytes=free) for device in host.devices
        ),
    )
