"""Whether the installed torch can compute on a device that a driver lists.

A card that is there is not a card that torch can use: builds for the CPU, for another vendor, for
newer or older cards, and drivers that are too old for a build are what people have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from quantd_server.host.description import Host
from quantd_server.host.device import Device, DeviceKind
from quantd_server.host.torch_build import TorchBuild

TOOLKITS: dict[DeviceKind, str] = {
    "CUDA": "CUDA",
    "ROCM": "ROCm",
    "XPU": "Intel GPUs (XPU)",
    "MPS": "Apple GPUs (MPS)",
}
"""What a build of torch is made for, by kind of device."""

_CUDA_ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)(\d)[af]?")


class UnmetRequirement(msgspec.Struct, frozen=True, kw_only=True):
    """Something that would have to change before a thing can be done."""

    reason: str
    message: str
    remedy: str


def unmet_by_torch(device: Device, host: Host) -> Iterator[UnmetRequirement]:
    """What the torch on ``host`` lacks for ``device``; nothing while it was not asked.

    What stands first is to be mended first.
    """
    if device.kind == "CPU":
        return
    if not host.version_of("torch"):
        yield package_missing("torch")
        return
    if host.torch is None:
        return
    if host.torch.failure:
        yield torch_failed(host)
    elif device.kind not in host.torch.built_for:
        yield UnmetRequirement(
            reason="TORCH_BUILT_FOR_OTHER_DEVICE",
            message=f"torch {host.torch.version} is built for "
            f"{_names(host.torch.built_for)}, not for {TOOLKITS[device.kind]}",
            remedy=f"install the build of torch for {TOOLKITS[device.kind]}",
        )
    elif device.kind not in host.torch.devices:
        yield _cannot_use(device, host.torch)
    elif not has_kernels(device, host.torch.architectures):
        architecture = device.architecture or f"compute capability {device.compute_capability}"
        yield UnmetRequirement(
            reason="TORCH_LACKS_KERNELS",
            message=f"torch {host.torch.version} has kernels for "
            f"{', '.join(host.torch.architectures)}; {device.name} has {architecture}",
            remedy="install a build of torch for this card: an older version for an older card, a "
            "newer one for a newer card",
        )


def unmet_to_compute(
    kind: DeviceKind, host: Host, *, with_bitsandbytes: bool
) -> Iterator[UnmetRequirement]:
    """What stands against quantizing on a device of this kind, a positive answer of torch's too."""
    if kind == "CPU":
        return
    devices = host.devices_of(kind)
    if not devices:
        yield UnmetRequirement(
            reason="DEVICE_MISSING",
            message=f"no driver lists a device of the kind {kind}",
            remedy="use a host that has one, or another device",
        )
        return
    unmet = [tuple(unmet_by_torch(device, host)) for device in devices]
    if all(unmet):
        yield from unmet[0]
    elif host.torch is None:
        yield UnmetRequirement(
            reason="TORCH_NOT_ASKED_YET",
            message=f"it is not known yet whether torch can compute on {devices[0].name}",
            remedy="try again in a few seconds",
        )
    if with_bitsandbytes:
        yield from _unmet_by_bitsandbytes(kind, host)


def has_kernels(device: Device, architectures: Sequence[str]) -> bool:
    """Whether code compiled for ``architectures`` runs on ``device``.

    Code for a CUDA card ("sm_86") runs on those with the same major number and no lower minor
    number, intermediate code ("compute_86") on all that are newer; code for an AMD card ("gfx942",
    perhaps with ":features") runs on exactly that. Unknown and told in no words: assumed to run.
    """
    if not architectures:
        return True
    if device.kind == "ROCM":
        return device.architecture in {name.partition(":")[0] for name in architectures}
    if device.kind != "CUDA":
        return True
    own = tuple(int(part) for part in device.compute_capability.split("."))
    for match in filter(None, map(_CUDA_ARCHITECTURE.fullmatch, architectures)):
        made_for = (int(match[2]), int(match[3]))
        if made_for <= own and (match[1] == "compute" or made_for[0] == own[0]):
            return True
    return False


def torch_failed(host: Host) -> UnmetRequirement:
    """Torch is installed and cannot be imported."""
    failure = host.torch.failure if host.torch else ""
    return UnmetRequirement(
        reason="TORCH_DOES_NOT_WORK",
        message=f"torch {host.version_of('torch')} is installed but does not work: {failure}",
        remedy="run `python -c 'import torch'` with the server's Python; install torch again",
    )


def package_missing(name: str, wanted: str = "") -> UnmetRequirement:
    """A distribution is not installed."""
    return UnmetRequirement(
        reason="PACKAGE_MISSING",
        message=f"{name} is not installed",
        remedy=f"pip install '{wanted}'" if wanted else f"pip install {name}",
    )


def _cannot_use(device: Device, torch: TorchBuild) -> UnmetRequirement:
    built, driver = TOOLKITS[device.kind], ""
    if device.kind == "CUDA":
        built += f" {torch.cuda_version}"
    elif device.kind == "ROCM":
        built += f" {torch.hip_version}"
    if device.driver_version:
        driver = f"; the driver's version is {device.driver_version}"
    return UnmetRequirement(
        reason="TORCH_CANNOT_USE_DEVICE",
        message=f"torch {torch.version} is built for {built}, but finds no device to use here"
        + driver,
        remedy="install a driver that is new enough for this build, or an older build; see that "
        "the server's user may use the device and that no variable such as CUDA_VISIBLE_DEVICES "
        "hides it",
    )


def _unmet_by_bitsandbytes(kind: DeviceKind, host: Host) -> Iterator[UnmetRequirement]:
    version = host.version_of("bitsandbytes")
    if not version:
        yield package_missing("bitsandbytes")
    elif host.torch and kind in host.torch.devices and kind not in host.torch.bitsandbytes_devices:
        yield UnmetRequirement(
            reason="BITSANDBYTES_LACKS_DEVICE",
            message=f"bitsandbytes {version} brings no code for {TOOLKITS[kind]} that fits torch "
            f"{host.torch.version}",
            remedy="install a newer bitsandbytes, or a torch that it has code for",
        )


def _names(kinds: Sequence[DeviceKind]) -> str:
    return " and ".join(TOOLKITS.get(kind, "the CPU") for kind in kinds)
