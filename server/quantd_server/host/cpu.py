"""The processor: its name, its features, and how much of it this process may use."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

import msgspec

from quantd_server.host import cgroup
from quantd_server.host.system import System, read_text, this_system

REPORTED_FEATURES = (
    "sse4_2",
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512dq",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "amx_fp16",
    "neon",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
    "sme",
    "sme2",
)
"""Features that kernels for quantizing or inference ask for, in the spelling of Linux."""

APPLE_ARM_FEATURES = {
    "hw.optional.neon": ("neon", "asimd"),
    "hw.optional.AdvSIMD": ("neon", "asimd"),
    "hw.optional.arm.AdvSIMD": ("neon", "asimd"),
    "hw.optional.arm.FEAT_FP16": ("asimdhp",),
    "hw.optional.arm.FEAT_DotProd": ("asimddp",),
    "hw.optional.arm.FEAT_I8MM": ("i8mm",),
    "hw.optional.arm.FEAT_BF16": ("bf16",),
    "hw.optional.arm.FEAT_SME": ("sme",),
    "hw.optional.arm.FEAT_SME2": ("sme2",),
}
"""What Linux calls the features that macOS answers with 1 for; several names over its versions."""

APPLE_X86_FEATURES = {
    "SSE4.2": "sse4_2",
    "AVX1.0": "avx",
    "F16C": "f16c",
    "FMA": "fma",
    "AVX2": "avx2",
    "AVX512F": "avx512f",
    "AVX512BW": "avx512bw",
    "AVX512DQ": "avx512dq",
    "AVX512VL": "avx512vl",
    "AVX512VNNI": "avx512_vnni",
}
"""What Linux calls the flags that macOS lists."""

APPLE_NAME = "machdep.cpu.brand_string"
APPLE_X86_FLAGS = ("machdep.cpu.features", "machdep.cpu.leaf7_features")

ARM_IMPLEMENTERS = {
    "0x41": "Arm",
    "0x46": "Fujitsu",
    "0x48": "HiSilicon",
    "0x4e": "NVIDIA",
    "0x51": "Qualcomm",
    "0x61": "Apple",
    "0xc0": "Ampere",
}
"""Who made an Arm core, by "CPU implementer" of /proc/cpuinfo."""


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    """The processor as this process sees it."""

    model: str
    """Product name; the instruction set where the system does not tell it."""
    machine: str
    """Instruction set, such as "x86_64"."""
    usable_cores: int
    features: tuple[str, ...]
    """Those of ``REPORTED_FEATURES`` that it has."""


def describe_cpu(system: System) -> Cpu:
    """What is known about the processor."""
    model, present = _apple(system) if system.name == "Darwin" else _linux(system)
    return Cpu(
        model=model or platform.processor() or system.machine,
        machine=system.machine,
        usable_cores=usable_cores(system.root),
        features=tuple(name for name in REPORTED_FEATURES if name in present),
    )


def usable_cores(root: Path | None = None) -> int:
    """Cores that affinity and the control group's quota leave to this process, at least 1."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    quota = cgroup.cpu_quota(root or this_system().root)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _linux(system: System) -> tuple[str, set[str]]:
    entries = _first_processor(read_text(system.root / "proc/cpuinfo"))
    present = set(entries.get("flags", entries.get("Features", "")).split())
    if present & {"asimd", "neon"}:
        present |= {"neon"}  # 64-bit kernels call it asimd
    return entries.get("model name") or _arm_core(entries), present


def _first_processor(text: str) -> dict[str, str]:
    """The first processor's entries; all of them have the same model and flags."""
    entries: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            entries.setdefault(key.strip(), value.strip())
        elif entries:
            break
    return entries


def _arm_core(entries: dict[str, str]) -> str:
    """The 64-bit Arm kernel tells numbers for a name: "Arm core 0xd40 revision 1"."""
    maker, part = entries.get("CPU implementer", ""), entries.get("CPU part", "")
    if not (maker and part):
        return ""
    revision = entries.get("CPU revision", "")
    name = f"{ARM_IMPLEMENTERS.get(maker.lower(), f'implementer {maker}')} core {part}"
    return f"{name} revision {revision}" if revision else name


def _apple(system: System) -> tuple[str, set[str]]:
    answers = system.sysctl([APPLE_NAME, *APPLE_ARM_FEATURES, *APPLE_X86_FLAGS])
    present = {
        name
        for question, names in APPLE_ARM_FEATURES.items()
        if answers.get(question) == "1"
        for name in names
    }
    flags = " ".join(answers.get(question, "") for question in APPLE_X86_FLAGS).split()
    present |= {APPLE_X86_FEATURES[flag] for flag in flags if flag in APPLE_X86_FEATURES}
    if system.is_apple_silicon:
        present |= {"neon", "asimd"}  # part of the instruction set
    return answers.get(APPLE_NAME, ""), present
