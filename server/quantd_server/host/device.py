"""One device that can compute."""

from __future__ import annotations

from typing import Literal

import msgspec

DeviceKind = Literal["CPU", "CUDA", "ROCM", "XPU", "MPS"]


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One device; field names are those of `Device` in the spec."""

    kind: DeviceKind
    index: int
    name: str
    compute_capability: str = ""
    """Of CUDA devices, such as "9.0"."""
    architecture: str = ""
    """Of ROCm devices, such as "gfx942"."""
    memory_total_bytes: int
    """0 where the driver does not tell it."""
    memory_free_bytes: int
    """The total where the driver does not tell what is used."""
    driver_version: str = ""
