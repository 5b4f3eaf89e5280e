"""The processor: its name, its features, and how much of it this process may use."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

import msgspec

from quantd_server.host import cgroup

CPUINFO = Path("/proc/cpuinfo")

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
    "neon",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
)
"""Features that kernels for quantizing or inference ask for, in the kernel's spelling."""


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    """The processor as this process sees it."""

    model: str
    """Product name; the instruction set where the system does not tell it."""
    machine: str
    """Instruction set, such as "x86_64"."""
    usable_cores: int
    features: tuple[str, ...]
    """Those of ``REPORTED_FEATURES`` that it has."""


def describe_cpu(cpuinfo: Path = CPUINFO) -> Cpu:
    """What is known about the processor."""
    entries = _read_cpuinfo(cpuinfo)
    present = set(entries.get("flags", entries.get("Features", "")).split())
    if "asimd" in present:
        present.add("neon")  # the 64-bit kernel's name for it
    machine = platform.machine()
    return Cpu(
        model=entries.get("model name") or platform.processor() or machine,
        machine=machine,
        usable_cores=usable_cores(),
        features=tuple(name for name in REPORTED_FEATURES if name in present),
    )


def usable_cores(root: Path = cgroup.SYSTEM_ROOT) -> int:
    """Cores that affinity and the control group's quota leave to this process, at least 1."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    quota = cgroup.cpu_quota(root)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _read_cpuinfo(path: Path) -> dict[str, str]:
    """The first processor's entries; all of them have the same model and flags."""
    entries: dict[str, str] = {}
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return entries
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            entries.setdefault(key.strip(), value.strip())
        elif entries:
            break
    return entries
