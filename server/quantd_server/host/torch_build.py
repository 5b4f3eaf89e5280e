"""What only torch can tell of itself: for which devices it was built, and which of them it can use.

``python -m quantd_server.host.torch_build`` asks it and prints the answer, a line of JSON. Only
that process imports torch; see ``torch_probe`` for how it is run.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from importlib import metadata
from typing import Any

import msgspec

from quantd_server.host.device import DeviceKind

LIMIT_SECONDS = 120
"""Longest life of the process: importing from a cold disk takes long, a broken driver for ever."""

NICENESS = 19

LIBRARY = re.compile(r"libbitsandbytes_(cuda|rocm|xpu)(\d*)\.")
"""Native code of bitsandbytes: one file for each device and version of its toolkit."""


class TorchBuild(msgspec.Struct, frozen=True, kw_only=True):
    """The installed torch."""

    failure: str = ""
    """Why nothing else is known; empty when it is."""
    version: str = ""
    cuda_version: str = ""
    """Version of CUDA it was built for; empty for other builds."""
    hip_version: str = ""
    """Version of HIP (ROCm) it was built for; empty for other builds."""
    architectures: tuple[str, ...] = ()
    """What its kernels were compiled for: "sm_90", "compute_90" (any newer card), "gfx942".
    Some versions tell none where they can use no such device."""
    built_for: tuple[DeviceKind, ...] = ()
    devices: tuple[DeviceKind, ...] = ()
    """Kinds of device that it can compute on here, the CPU first."""
    bitsandbytes_devices: tuple[DeviceKind, ...] = ()
    """Those for which bitsandbytes brings code that fits this torch."""


def ask_torch(torch: Any) -> TorchBuild:
    """What the imported module tells. Any of its questions may raise."""
    cuda, hip = torch.version.cuda or "", torch.version.hip or ""
    gpu: DeviceKind = "ROCM" if hip else "CUDA"
    has_xpu = bool(getattr(torch.version, "xpu", None))
    built: list[DeviceKind] = ["CPU"]
    usable: list[DeviceKind] = ["CPU"]
    for kind, is_built, is_usable in (
        (gpu, bool(cuda or hip), torch.cuda.is_available),
        ("XPU", has_xpu, torch.xpu.is_available),
        ("MPS", torch.backends.mps.is_built(), torch.backends.mps.is_available),
    ):
        if is_built:
            built.append(kind)  # type: ignore[arg-type]
            if is_usable():
                usable.append(kind)  # type: ignore[arg-type]
    return TorchBuild(
        version=str(torch.__version__),
        cuda_version=cuda,
        hip_version=hip,
        architectures=tuple(torch.cuda.get_arch_list()),
        built_for=tuple(built),
        devices=tuple(usable),
        bitsandbytes_devices=bitsandbytes_devices(
            bitsandbytes_libraries(), cuda=cuda, hip=hip, xpu=has_xpu
        ),
    )


def bitsandbytes_libraries() -> tuple[str, ...]:
    """Files of its native code, by name. Importing the package takes ten seconds."""
    try:
        files = metadata.files("bitsandbytes") or ()
    except metadata.PackageNotFoundError:
        return ()
    return tuple(file.name for file in files if LIBRARY.match(file.name))


def bitsandbytes_devices(
    libraries: tuple[str, ...], *, cuda: str, hip: str, xpu: bool
) -> tuple[DeviceKind, ...]:
    """Devices for which one of ``libraries`` fits.

    Its loader (cextension.py of 0.50) takes the nearest version with the same major number.
    """
    found = [(match[1], match[2]) for match in map(LIBRARY.match, libraries) if match]
    # CUDA's major number has two digits in the names, ROCm's one.
    majors = {("cuda", digits[:2]) for name, digits in found if name == "cuda"}
    majors |= {("rocm", digits[:1]) for name, digits in found if name == "rocm"}
    devices: list[DeviceKind] = []
    if cuda and ("cuda", cuda.partition(".")[0]) in majors:
        devices.append("CUDA")
    if hip and ("rocm", hip.partition(".")[0]) in majors:
        devices.append("ROCM")
    if xpu and any(name == "xpu" for name, _ in found):
        devices.append("XPU")
    return tuple(devices)


def main() -> None:
    """Print what torch tells."""
    with contextlib.suppress(AttributeError, OSError):  # neither on Windows
        signal.alarm(LIMIT_SECONDS)  # whoever asked may be gone
        os.nice(NICENESS)
    # What libraries print must not get between the lines of the answer.
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        import torch

        line = msgspec.json.encode(ask_torch(torch))
    except Exception as error:  # noqa: BLE001 - a broken torch can raise anything
        line = msgspec.json.encode(TorchBuild(failure=f"{type(error).__name__}: {error}"))
    answer.write(line + b"\n")
    answer.flush()
    os._exit(0)  # destructors of a driver can hang


if __name__ == "__main__":
    main()
