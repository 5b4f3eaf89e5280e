"""What this server and its host can do: the answer of `GetCapabilities` in domain terms.

Field names are those of the spec. What does not change while a process runs (methods, packages,
the processor) is separate from what does (memory, devices), so that a refresh is cheap.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence

import msgspec

from quantd_server.engine.specification import Engine
from quantd_server.host.cpu import Cpu, describe_cpu
from quantd_server.host.devices import Device, DeviceKind, describe_devices
from quantd_server.host.memory import Memory, describe_memory
from quantd_server.host.packages import Package, describe_packages
from quantd_server.methods.gguf.architectures import FAMILIES
from quantd_server.methods.gguf.file_types import FILE_TYPES
from quantd_server.methods.gguf.mixtures import NEEDS_IMATRIX
from quantd_server.methods.registry import METHODS, UNAVAILABLE
from quantd_server.planning.load_requirements import (
    LOAD_PATHS,
    PACKAGES,
    UnmetRequirement,
    unmet_requirements,
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
    devices: tuple[Device, ...]
    packages: tuple[Package, ...]
    methods: tuple[MethodCapability, ...]
    limits: Limits


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
        needs_calibration=True,
        bits=(2, 3, 4, 8),
        group_sizes=(-1, 16, 32, 64, 128, 256, 512, 1024),
        output_formats=("gptq", "gptq_v2"),
    ),
    "awq": MethodFacts(
        needs_calibration=True,
        bits=(4,),
        group_sizes=(-1, 16, 32, 64, 128),
        output_formats=("gemm",),
    ),
    "gguf": MethodFacts(quantize_packages=("numba", "gguf"), output_formats=("gguf",)),
    "aqlm": MethodFacts(needs_calibration=True, output_formats=("aqlm",)),
}
"""All methods of the API, in the spec's order."""

FILE_TYPES_OUTSIDE_THE_SPEC = frozenset({"IQ3_XS"})
"""Known recipes that v1 does not offer: its IQ3_XXS tensors cannot be written."""


class CapabilityReporter:
    """Makes reports: the lasting part once, the rest each time."""

    def __init__(self, server: ServerInfo, limits: Limits) -> None:
        self._server = server
        self._limits = limits
        self._cpu = describe_cpu()
        self._packages = describe_packages(PACKAGES)

    def report(self) -> CapabilityReport:
        """Capabilities now. Asks the driver of each GPU, so it can take milliseconds."""
        memory = describe_memory()
        devices = describe_devices(self._cpu, memory)
        versions = {package.name: package.version for package in self._packages}
        return CapabilityReport(
            server=self._server,
            host=_host_info(self._cpu, memory),
            devices=devices,
            packages=self._packages,
            methods=tuple(method_capability(name, versions, devices) for name in FACTS),
            limits=self._limits,
        )


def method_capability(
    name: str, versions: Mapping[str, str], devices: Sequence[Device]
) -> MethodCapability:
    """What can be done with a method, given package versions ("" if absent) and devices."""
    facts = FACTS[name]
    usable = facts.devices if name in METHODS else ()
    present = {device.kind for device in devices}
    return MethodCapability(
        method=name.upper(),
        quantize=_availability(_unmet_to_quantize(name, versions)),
        load=tuple(
            EngineAvailability(
                engine=path.engine,
                availability=_availability(unmet_requirements(path, versions, devices)),
            )
            for path in LOAD_PATHS[name]
        ),
        devices=tuple(
            kind
            for kind in usable
            if kind in present and (kind != "CUDA" or _has_cuda_packages(versions))
        ),
        needs_calibration=facts.needs_calibration,
        bits=facts.bits,
        group_sizes=facts.group_sizes,
        output_formats=facts.output_formats,
        gguf_file_types=gguf_file_types() if name == "gguf" else (),
        model_types=tuple(sorted(FAMILIES)) if name == "gguf" else (),
    )


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


def _unmet_to_quantize(name: str, versions: Mapping[str, str]) -> tuple[UnmetRequirement, ...]:
    if name not in METHODS:
        finding = UNAVAILABLE[name]
        return (
            UnmetRequirement(reason=finding.reason, message=finding.message, remedy=finding.remedy),
        )
    return tuple(
        UnmetRequirement(
            reason="PACKAGE_MISSING",
            message=f"{package} is not installed",
            remedy=f"pip install {package}",
        )
        for package in FACTS[name].quantize_packages
        if not versions.get(package)
    )


def _has_cuda_packages(versions: Mapping[str, str]) -> bool:
    return bool(versions.get("torch") and versions.get("bitsandbytes"))


def _availability(unmet: tuple[UnmetRequirement, ...]) -> Availability:
    return Availability(available=not unmet, unmet=unmet)


def _host_info(cpu: Cpu, memory: Memory) -> HostInfo:
    return HostInfo(
        operating_system=f"{platform.system()} {platform.release()}",
        machine=cpu.machine,
        cpu_model=cpu.model,
        cpu_count=cpu.usable_cores,
        cpu_features=cpu.features,
        memory_total_bytes=memory.total,
        memory_available_bytes=memory.available,
        memory_limit_bytes=memory.limit,
    )
