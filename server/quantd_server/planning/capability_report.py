"""What this server and its host can do: the answer of `GetCapabilities` in domain terms.

Field names are those of the spec.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from quantd_server.engine.specification import Engine
from quantd_server.host.description import Host, refresh
from quantd_server.host.device import Device, DeviceKind
from quantd_server.host.packages import Package
from quantd_server.host.torch_build import TorchBuild
from quantd_server.methods.gguf.architectures import FAMILIES
from quantd_server.methods.gguf.file_types import FILE_TYPES
from quantd_server.methods.gguf.mixtures import NEEDS_IMATRIX
from quantd_server.planning.load_requirements import LOAD_PATHS, describe_host, unmet_requirements
from quantd_server.planning.torch_requirements import (
    UnmetRequirement,
    package_missing,
    unmet_by_torch,
    unmet_to_compute,
)


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The server itself; the start is in seconds since 1970."""

    version: str
    api_versions: tuple[str, ...]
    instance_id: str
    start_time: float


class HostInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Processor, memory and system."""

    operating_system: str
    machine: str
    cpu_model: str
    cpu_count: int
    cpu_features: tuple[str, ...]
    memory_total_bytes: int
    memory_available_bytes: int
    memory_limit_bytes: int


class DeviceInfo(Device, frozen=True, kw_only=True):
    """A device, and what stands against computing on it with the installed torch."""

    unmet: tuple[UnmetRequirement, ...] = ()


class TorchInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The installed torch, as far as it is known."""

    state: Literal["ABSENT", "PENDING", "KNOWN", "FAILED"]
    version: str = ""
    cuda_version: str = ""
    hip_version: str = ""
    architectures: tuple[str, ...] = ()
    devices: tuple[DeviceKind, ...] = ()
    bitsandbytes_devices: tuple[DeviceKind, ...] = ()
    failure: str = ""


class Availability(msgspec.Struct, frozen=True, kw_only=True):
    """Whether something can be done here, and if not, why."""

    available: bool
    unmet: tuple[UnmetRequirement, ...] = ()


class EngineAvailability(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an engine can load the results of a method here."""

    engine: Engine
    availability: Availability


class GgufFileTypeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A .gguf file type this server writes."""

    file_type: str
    base_type: str
    bits_per_weight: float
    needs_imatrix: bool


class MethodCapability(msgspec.Struct, frozen=True, kw_only=True):
    """What this server can do with one method."""

    method: str
    quantize: Availability
    load: tuple[EngineAvailability, ...]
    devices: tuple[DeviceKind, ...] = ()
    needs_calibration: bool = False
    bits: tuple[int, ...] = ()
    group_sizes: tuple[int, ...] = ()
    output_formats: tuple[str, ...] = ()
    gguf_file_types: tuple[GgufFileTypeInfo, ...] = ()
    model_types: tuple[str, ...] = ()


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits a client has to respect; bytes and seconds."""

    max_request_bytes: int
    max_running_jobs: int
    max_queued_jobs: int
    max_finished_jobs: int
    max_events_per_job: int
    heartbeat_interval: float
    max_violations: int


class CapabilityReport(msgspec.Struct, frozen=True, kw_only=True):
    """`GetCapabilitiesResponse`."""

    server: ServerInfo
    host: HostInfo
    devices: tuple[DeviceInfo, ...]
    packages: tuple[Package, ...]
    methods: tuple[MethodCapability, ...]
    limits: Limits
    torch: TorchInfo


class MethodFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is true of a method on every host."""

    quantize_packages: tuple[str, ...] = ()
    devices: tuple[DeviceKind, ...] = ("CPU",)
    """Devices its quantization can compute on, best first."""
    needs_calibration: bool = False
    bits: tuple[int, ...] = ()
    group_sizes: tuple[int, ...] = ()
    output_formats: tuple[str, ...] = ()


# Value ranges as the rules of the spec have them.
FACTS: dict[str, MethodFacts] = {
    "bitsandbytes_8bit": MethodFacts(
        quantize_packages=("numba",),
        devices=("CUDA", "CPU"),
        bits=(8,),
        output_formats=("bitsandbytes",),
    ),
    "bitsandbytes_4bit": MethodFacts(
        quantize_packages=("numba",),
        devices=("CUDA", "CPU"),
        bits=(4,),
        group_sizes=(32, 64, 128, 256, 512, 1024, 2048, 4096),
        output_formats=("bitsandbytes",),
    ),
    "gptq": MethodFacts(
        quantize_packages=("torch", "transformers", "numba"),
        devices=("CUDA", "CPU"),
        needs_calibration=True,
        bits=(2, 3, 4, 8),
        group_sizes=(-1, 16, 32, 64, 128, 256, 512, 1024),
        output_formats=("gptq", "gptq_v2"),
    ),
    "awq": MethodFacts(
        quantize_packages=("torch", "transformers", "numba"),
        devices=("CUDA", "CPU"),
        needs_calibration=True,
        bits=(4,),
        group_sizes=(-1, 16, 32, 64, 128),
        output_formats=("gemm",),
    ),
    "gguf": MethodFacts(quantize_packages=("numba", "gguf"), output_formats=("gguf",)),
    "aqlm": MethodFacts(
        quantize_packages=("torch", "transformers", "numba"),
        devices=("CUDA", "CPU"),
        needs_calibration=True,
        output_formats=("aqlm",),
    ),
}
"""All methods of the API, in the spec's order."""

FILE_TYPES_OUTSIDE_THE_SPEC = frozenset({"IQ3_XS"})
"""Known recipes that v1 does not offer: its IQ3_XXS tensors cannot be written."""


class CapabilityReporter:
    """Makes reports about this host. One thread at a time."""

    def __init__(self, server: ServerInfo, limits: Limits, host: Host) -> None:
        self.host = host
        self._server = server
        self._limits = limits

    def examine(self, torch: TorchBuild | None, *, packages: bool = False) -> None:
        """Look at the host again: at memory and devices, and at ``packages`` if they are meant too.

        ``torch`` is what it told of itself, if it did. Asks the driver of each GPU, so it can take
        milliseconds.
        """
        host = describe_host() if packages else refresh(self.host)
        self.host = msgspec.structs.replace(host, torch=torch)

    def report(self) -> CapabilityReport:
        """Capabilities of the host as it was examined last."""
        return capability_report(self._server, self._limits, self.host)


def capability_report(server: ServerInfo, limits: Limits, host: Host) -> CapabilityReport:
    """What the server can do on ``host``."""
    return CapabilityReport(
        server=server,
        host=_host_info(host),
        devices=tuple(
            DeviceInfo(**msgspec.structs.asdict(device), unmet=tuple(unmet_by_torch(device, host)))
            for device in host.devices
        ),
        packages=host.packages,
        methods=tuple(method_capability(name, host) for name in FACTS),
        limits=limits,
        torch=torch_info(host),
    )


def torch_info(host: Host) -> TorchInfo:
    """What is known about the installed torch."""
    version, torch = host.version_of("torch"), host.torch
    if not version:
        return TorchInfo(state="ABSENT")
    if torch is None:
        return TorchInfo(state="PENDING", version=version)
    if torch.failure:
        return TorchInfo(state="FAILED", version=version, failure=torch.failure)
    return TorchInfo(
        state="KNOWN",
        version=torch.version,
        cuda_version=torch.cuda_version,
        hip_version=torch.hip_version,
        architectures=torch.architectures,
        devices=torch.devices,
        bitsandbytes_devices=torch.bitsandbytes_devices,
    )


def method_capability(name: str, host: Host) -> MethodCapability:
    """What can be done with a method on ``host``."""
    facts = FACTS[name]
    return MethodCapability(
        method=name.upper(),
        quantize=_availability(_unmet_to_quantize(name, host)),
        load=tuple(
            EngineAvailability(
                engine=path.engine,
                availability=_availability(unmet_requirements(path, host)),
            )
            for path in LOAD_PATHS[name]
        ),
        devices=usable_devices(name, host),
        needs_calibration=facts.needs_calibration,
        bits=facts.bits,
        group_sizes=facts.group_sizes,
        output_formats=facts.output_formats,
        gguf_file_types=gguf_file_types() if name == "gguf" else (),
        model_types=tuple(sorted(FAMILIES)) if name == "gguf" else (),
    )


def usable_devices(method: str, host: Host) -> tuple[DeviceKind, ...]:
    """Kinds of device that quantizing with ``method`` can use on ``host``, best first."""
    kinds = FACTS[method].devices
    return tuple(kind for kind in kinds if not any(unmet_on_device(method, kind, host)))


def unmet_on_device(method: str, kind: DeviceKind, host: Host) -> Iterator[UnmetRequirement]:
    """What stands against quantizing with ``method`` on a device of this kind."""
    kinds = FACTS[method].devices
    if kind not in kinds:
        yield UnmetRequirement(
            reason="DEVICE_NOT_SERVED",
            message=f"this server computes {method} on {' and '.join(kinds)} only",
            remedy="",
        )
        return
    with_bitsandbytes = method.startswith("bitsandbytes")
    yield from unmet_to_compute(kind, host, with_bitsandbytes=with_bitsandbytes)


def gguf_file_types() -> tuple[GgufFileTypeInfo, ...]:
    """The file types of the spec."""
    return tuple(
        GgufFileTypeInfo(
            file_type=entry.name,
            base_type=entry.base_type,
            bits_per_weight=entry.bits_per_weight,
            needs_imatrix=entry.name == "Q2_K_S" or entry.base_type in NEEDS_IMATRIX,
        )
        for entry in FILE_TYPES.values()
        if entry.name not in FILE_TYPES_OUTSIDE_THE_SPEC
    )


def _unmet_to_quantize(name: str, host: Host) -> tuple[UnmetRequirement, ...]:
    return tuple(
        package_missing(package)
        for package in FACTS[name].quantize_packages
        if not host.version_of(package)
    )


def _availability(unmet: tuple[UnmetRequirement, ...]) -> Availability:
    return Availability(available=not unmet, unmet=unmet)


def _host_info(host: Host) -> HostInfo:
    return HostInfo(
        operating_system=host.operating_system,
        machine=host.cpu.machine,
        cpu_model=host.cpu.model,
        cpu_count=host.cpu.usable_cores,
        cpu_features=host.cpu.features,
        memory_total_bytes=host.memory.total,
        memory_available_bytes=host.memory.available,
        memory_limit_bytes=host.memory.limit,
    )
