"""What an engine needs on a host before it can load what a method makes.

Facts: the quantizers of transformers 5.17 (``validate_environment``), the lists of quantization
methods of vLLM and SGLang with the ``get_min_capability`` of each, and the packages they import.
SGLang checked against its ``ModelRunner.load_model``, which refuses everything below 7.5 ("SGLang
only supports sm75 and above"); vLLM's GGUF against vllm-gguf-plugin 0.0.5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from quantd_server.engine.specification import Engine
from quantd_server.host.description import Host, describe
from quantd_server.host.devices import Device
from quantd_server.host.packages import at_least
from quantd_server.planning.torch_requirements import (
    UnmetRequirement,
    package_missing,
    torch_failed,
    unmet_by_torch,
)

LLAMA_CPP_PROGRAMS = ("llama-server", "llama-cli")


class LoadPath(msgspec.Struct, frozen=True, kw_only=True):
    """How one engine loads the results of one method."""

    engine: Engine
    packages: Mapping[str, str] = {}
    """Minimum version by distribution; "" for any."""
    min_compute_capability: tuple[int, int] | None = None
    """Of the CUDA card it needs; None when a CPU will do."""
    dropped: str = ""
    """Why no current version of the engine loads it; empty when they do."""


_SGLANG = LoadPath(engine="SGLANG", packages={"sglang": ""}, min_compute_capability=(7, 5))
"""The engine as a whole asks for more than any method here."""

_BITSANDBYTES = (
    LoadPath(
        engine="TRANSFORMERS",
        packages={"torch": "", "transformers": "", "accelerate": "", "bitsandbytes": "0.46.1"},
    ),
    LoadPath(
        engine="VLLM",
        packages={"vllm": "", "bitsandbytes": "0.46.1"},
        min_compute_capability=(7, 0),
    ),
    msgspec.structs.replace(_SGLANG, packages={"sglang": "", "bitsandbytes": "0.46.1"}),
)

LOAD_PATHS: dict[str, tuple[LoadPath, ...]] = {
    "bitsandbytes_8bit": _BITSANDBYTES,
    "bitsandbytes_4bit": _BITSANDBYTES,
    "gptq": (
        LoadPath(
            engine="TRANSFORMERS",
            packages={"torch": "", "transformers": "", "optimum": "1.24", "gptqmodel": "1.4.3"},
        ),
        LoadPath(engine="VLLM", packages={"vllm": ""}, min_compute_capability=(6, 0)),
        _SGLANG,
    ),
    "awq": (
        LoadPath(
            engine="TRANSFORMERS",
            packages={"torch": "", "transformers": "", "accelerate": "", "gptqmodel": ""},
        ),
        LoadPath(engine="VLLM", packages={"vllm": ""}, min_compute_capability=(7, 5)),
        _SGLANG,
    ),
    "gguf": (
        LoadPath(engine="LLAMA_CPP"),
        LoadPath(engine="TRANSFORMERS", packages={"torch": "", "transformers": "", "gguf": "0.10"}),
        LoadPath(
            engine="VLLM",
            packages={"vllm": "0.24", "vllm-gguf-plugin": ""},
            min_compute_capability=(6, 0),
        ),
        msgspec.structs.replace(_SGLANG, packages={"sglang": "", "gguf": "0.10"}),
    ),
    "aqlm": (
        LoadPath(
            engine="TRANSFORMERS",
            packages={"torch": "", "transformers": "", "accelerate": "", "aqlm": ""},
        ),
        LoadPath(engine="VLLM", dropped="current versions of vLLM do not load AQLM"),
    ),
}
"""By method, in the order in which an answer lists them."""

PLAIN_PATHS = (
    LoadPath(engine="TRANSFORMERS", packages={"torch": "", "transformers": ""}),
    LoadPath(engine="VLLM", packages={"vllm": ""}, min_compute_capability=(7, 0)),
    _SGLANG,
)
"""For a Hugging Face checkpoint that is not quantized."""

PACKAGES = tuple(
    sorted(
        {name for paths in LOAD_PATHS.values() for path in paths for name in path.packages}
        | {"llama-cpp-python", "numba", "safetensors", "sglang"}
    )
)
"""Distributions that quantizing or loading may need."""


def describe_host() -> Host:
    """This host, with everything that capabilities and assessments ask about."""
    return describe(PACKAGES, LLAMA_CPP_PROGRAMS)


def unmet_requirements(path: LoadPath, host: Host) -> tuple[UnmetRequirement, ...]:
    """What ``host`` lacks for ``path``; any of its cards may be the one that computes."""
    return (
        *unmet_software(path, host),
        *unmet_compute_capability(path.min_compute_capability, host.devices),
        *_unmet_on_cards(path, host),
    )


def _unmet_on_cards(path: LoadPath, host: Host) -> Iterator[UnmetRequirement]:
    """Where a card is needed: what torch lacks for the first of those that are new enough."""
    minimum = path.min_compute_capability
    if minimum is None or not host.version_of("torch"):
        return
    cards = [
        device
        for device in host.devices_of("CUDA")
        if capability_of(device.compute_capability) >= minimum
    ]
    unmet = [tuple(unmet_by_torch(card, host)) for card in cards]
    if unmet and all(unmet):
        yield from (found for found in unmet[0] if found.reason != "TORCH_DOES_NOT_WORK")


def unmet_software(path: LoadPath, host: Host) -> Iterator[UnmetRequirement]:
    """The packages and programs that ``host`` lacks for ``path``."""
    if path.dropped:
        yield UnmetRequirement(reason="ENGINE_DROPPED_METHOD", message=path.dropped, remedy="")
    if path.engine == "LLAMA_CPP":
        yield from _unmet_llama_cpp(host)
    elif host.torch and host.torch.failure and host.version_of("torch"):
        yield torch_failed(host)
    for name, minimum in path.packages.items():
        version = host.version_of(name)
        wanted = f"{name}>={minimum}" if minimum else name
        if not version:
            yield package_missing(name, wanted)
        elif minimum and not at_least(version, minimum):
            yield UnmetRequirement(
                reason="PACKAGE_TOO_OLD",
                message=f"{name} {version} is installed; {minimum} or newer is needed",
                remedy=f"pip install '{wanted}'",
            )


def _unmet_llama_cpp(host: Host) -> Iterator[UnmetRequirement]:
    # llama.cpp is a program and no package: what can be known is whether one is on the path.
    if host.version_of("llama-cpp-python") or host.programs:
        return
    yield UnmetRequirement(
        reason="LLAMA_CPP_NOT_FOUND",
        message=f"no {' or '.join(LLAMA_CPP_PROGRAMS)} on the server's PATH and no "
        "llama-cpp-python; a llama.cpp elsewhere is not known here",
        remedy="install llama.cpp, or take the file to where it is",
    )


def unmet_compute_capability(
    minimum: tuple[int, int] | None, devices: Sequence[Device]
) -> Iterator[UnmetRequirement]:
    """Whether one of ``devices`` is a CUDA card of at least ``minimum``, if that is needed."""
    if minimum is None:
        return
    cards = [device for device in devices if device.kind == "CUDA"]
    wanted = f"{minimum[0]}.{minimum[1]}"
    if not cards:
        yield UnmetRequirement(
            reason="CUDA_DEVICE_MISSING",
            message="the NVIDIA driver lists no CUDA device, or there is no driver",
            remedy=f"use a host with a card of compute capability {wanted} or newer",
        )
    elif not any(capability_of(card.compute_capability) >= minimum for card in cards):
        best = max(cards, key=lambda card: capability_of(card.compute_capability))
        yield UnmetRequirement(
            reason="COMPUTE_CAPABILITY_TOO_LOW",
            message=f"{best.name} has compute capability {best.compute_capability}; "
            f"{wanted} or newer is needed",
            remedy="use a newer card",
        )


def capability_of(text: str) -> tuple[int, ...]:
    """The numbers of a compute capability: (8, 6) of "8.6"."""
    return tuple(int(part) for part in text.split("."))
