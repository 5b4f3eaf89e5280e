"""Whether a host can load a checkpoint: by engine and device, from the description alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

from quantd_server.engine.specification import Engine
from quantd_server.errors import Finding, Severity
from quantd_server.host.description import Host
from quantd_server.host.devices import Device
from quantd_server.planning.artifact import Artifact, configured_artifact
from quantd_server.planning.load_requirements import (
    LOAD_PATHS,
    PLAIN_PATHS,
    LoadPath,
    capability_of,
    unmet_compute_capability,
    unmet_software,
)
from quantd_server.planning.report import CheckpointDescription, LoadAssessment
from quantd_server.planning.serve_targets import (
    ENGINE_NAMES,
    TRANSFORMERS_PACKED_ARCHITECTURES,
    engine_findings,
)
from quantd_server.planning.torch_requirements import UnmetRequirement, unmet_by_torch

DEFAULT_CONTEXT_LENGTH = 8192
"""Longest context that is assumed when none is asked for."""

CACHE_ELEMENT_BYTES = 2
"""float16 and bfloat16, which all engines keep keys and values in unless told otherwise."""

MAX_BYTES = (1 << 63) - 1
"""Largest number of bytes that an answer tells: sizes in headers may multiply to anything."""

COMFORTABLE_SHARE = 0.9
"""Of the free memory; the rest goes to activations and to the engine itself. vLLM's default."""

CARD_ENGINES = frozenset({"VLLM", "SGLANG"})
"""Engines whose releases compute on NVIDIA cards."""

_SHRUNK_TYPES = {"F64": 4, "F32": 2}
"""How many times smaller vLLM and SGLang make these: their dtype "auto" has 16 bits at most."""

_SAID_BY_REQUIREMENTS = frozenset({"COMPUTE_CAPABILITY_TOO_LOW", "ENGINE_PLUGIN_NEEDED"})
"""Of a host that is there, the requirements name the card and the package that is missing."""

_SPREADING = {
    "TRANSFORMERS": 'device_map="auto"',
    "VLLM": "--tensor-parallel-size or --pipeline-parallel-size",
    "SGLANG": "--tp-size or --pp-size",
    "LLAMA_CPP": "--split-mode layer, which is its default",
}


def assess_loads(
    checkpoint: CheckpointDescription, host: Host, context_length: int | None
) -> tuple[LoadAssessment, ...]:
    """Every engine that may be asked, on every device of ``host`` it may use.

    ``context_length`` in tokens sizes the cache; None is the model's own, at most 8192.
    """
    artifact = _artifact(checkpoint)
    token_bytes = cache_bytes_per_token(checkpoint)
    tokens = assumed_context(checkpoint, context_length)
    return tuple(
        _assess(checkpoint, artifact, path, device, host, tokens=tokens, token_bytes=token_bytes)
        for path in _paths(artifact)
        for device in _devices(path.engine, host)
    )


def assumed_context(checkpoint: CheckpointDescription, asked: int | None) -> int:
    """Tokens that the cache is sized for."""
    own = checkpoint.context_length or DEFAULT_CONTEXT_LENGTH
    return asked if asked is not None else min(own, DEFAULT_CONTEXT_LENGTH)


def cache_bytes_per_token(checkpoint: CheckpointDescription) -> int:
    """Bytes of keys and values that one token of one sequence leaves in all blocks.

    An upper bound: sliding windows and blocks without attention, which keep less, are counted as
    full attention, and so are the heads that latent attention would compress.
    """
    heads = checkpoint.kv_head_count * checkpoint.head_dim
    return 2 * CACHE_ELEMENT_BYTES * checkpoint.block_count * heads


def weight_bytes(checkpoint: CheckpointDescription, engine: Engine) -> int:
    """Bytes of the weights in memory once ``engine`` has loaded them.

    Packed weights stay packed; the exceptions are the .gguf files that transformers unpacks to
    float32, its default there.
    """
    if engine == "TRANSFORMERS" and checkpoint.format == "GGUF":
        if checkpoint.model_type in TRANSFORMERS_PACKED_ARCHITECTURES:
            return checkpoint.size_bytes
        return 4 * checkpoint.parameter_count
    if engine in CARD_ENGINES and checkpoint.quantization is None:
        return sum(
            summary.size_bytes // _SHRUNK_TYPES.get(summary.dtype, 1)
            for summary in checkpoint.dtypes
        )
    return checkpoint.size_bytes


def _artifact(checkpoint: CheckpointDescription) -> Artifact | None:
    """The checkpoint as the table of engines knows it; None unless a method of ours made it."""
    if checkpoint.format == "GGUF":
        return Artifact(
            method="gguf",
            gguf_architecture=checkpoint.model_type,
            tensor_types=frozenset(summary.dtype for summary in checkpoint.dtypes),
        )
    existing = checkpoint.quantization
    if existing is None:
        return None
    if existing.quant_method == "bitsandbytes":
        config = json.loads(existing.config_json)
        if config.get("load_in_8bit"):
            return Artifact(method="bitsandbytes_8bit")
        return Artifact(
            method="bitsandbytes_4bit",
            quant_storage=str(config.get("bnb_4bit_quant_storage") or "uint8").upper(),
            compute_dtype=str(config.get("bnb_4bit_compute_dtype") or "float32").upper(),
        )
    if existing.method is not None and existing.method.name in ("gptq", "awq", "aqlm"):
        return configured_artifact(existing.method)
    if existing.quant_method in LOAD_PATHS:
        return Artifact(method=existing.quant_method)
    return None


def _paths(artifact: Artifact | None) -> tuple[LoadPath, ...]:
    paths = LOAD_PATHS[artifact.method] if artifact else PLAIN_PATHS
    if any(path.engine == "LLAMA_CPP" for path in paths):
        return paths
    return (*paths, LoadPath(engine="LLAMA_CPP"))  # to say why not


def _devices(engine: Engine, host: Host) -> tuple[Device, ...]:
    """The devices to tell about; engines for cards are told about on a CPU if there is no card."""
    if engine in CARD_ENGINES:
        return host.devices_of("CUDA") or host.devices_of("CPU")
    return host.devices


def _assess(
    checkpoint: CheckpointDescription,
    artifact: Artifact | None,
    path: LoadPath,
    device: Device,
    host: Host,
    *,
    tokens: int,
    token_bytes: int,
) -> LoadAssessment:
    weights = weight_bytes(checkpoint, path.engine)
    findings = [*_format_findings(checkpoint, artifact, path.engine, device)]
    if not any(finding.reason == "ENGINE_CANNOT_READ" for finding in findings):
        findings += _requirement_findings(path, device, host)
        findings += _bfloat16_findings(checkpoint, artifact, device)
        if device.kind == "CUDA" or path.engine not in CARD_ENGINES:
            findings += _memory_findings(path.engine, device, host, weights, tokens, token_bytes)
    return LoadAssessment(
        engine=path.engine,
        device=device.kind,
        device_index=device.index,
        loadable=not any(finding.severity is Severity.ERROR for finding in findings),
        weight_bytes=min(weights, MAX_BYTES),
        kv_cache_bytes=min(tokens * token_bytes, MAX_BYTES),
        free_bytes=device.memory_free_bytes,
        findings=tuple(findings),
    )


def _format_findings(
    checkpoint: CheckpointDescription, artifact: Artifact | None, engine: Engine, device: Device
) -> Iterator[Finding]:
    if artifact is not None:
        for finding in engine_findings(artifact, engine, _capability(device)):
            if finding.reason not in _SAID_BY_REQUIREMENTS:
                yield finding
    elif engine == "LLAMA_CPP":
        yield _finding(
            Severity.ERROR,
            "ENGINE_CANNOT_READ",
            "llama.cpp reads .gguf files only",
            "quantize it with the method gguf; file type BF16 or F16 only converts it",
        )
    if artifact is None and checkpoint.quantization is not None:
        yield _finding(
            Severity.WARNING,
            "QUANTIZATION_NOT_ASSESSED",
            f"what {ENGINE_NAMES[engine]} needs for {checkpoint.quantization.quant_method} is not "
            "known here; only the memory was compared",
            "look into the engine's documentation",
        )


def _requirement_findings(path: LoadPath, device: Device, host: Host) -> Iterator[Finding]:
    for unmet in unmet_software(path, host):
        yield _from_requirement(unmet)
    for unmet in unmet_compute_capability(path.min_compute_capability, (device,)):
        yield _from_requirement(unmet)
    if path.engine != "LLAMA_CPP" and host.version_of("torch"):
        for unmet in unmet_by_torch(device, host):
            if unmet.reason != "TORCH_DOES_NOT_WORK":  # said with the software
                yield _from_requirement(unmet)


def _bfloat16_findings(
    checkpoint: CheckpointDescription, artifact: Artifact | None, device: Device
) -> Iterator[Finding]:
    """Of plain checkpoints: the packed ones have a compute type of their own."""
    capability = _capability(device)
    has_bfloat16 = any(summary.dtype == "BF16" for summary in checkpoint.dtypes)
    if artifact is None and has_bfloat16 and capability and capability < (8, 0):
        yield _finding(
            Severity.WARNING,
            "BFLOAT16_SLOW",
            f"{device.name} (compute capability {device.compute_capability}) has no units for "
            "bfloat16, the type of the weights; they begin with 8.0",
            "load it with dtype float16",
        )


def _memory_findings(
    engine: Engine, device: Device, host: Host, weights: int, tokens: int, token_bytes: int
) -> Iterator[Finding]:
    needed, free = weights + tokens * token_bytes, device.memory_free_bytes
    what = f"{_size(weights)} of weights and {_size(tokens * token_bytes)} of cache"
    if not device.memory_total_bytes:
        yield _finding(
            Severity.WARNING,
            "MEMORY_UNKNOWN",
            f"{what} are needed; the driver of {device.name} does not tell how much it has",
            "look it up in the maker's data sheet",
        )
        return
    if needed > free:
        yield _finding(
            Severity.ERROR,
            "MEMORY_TOO_SMALL",
            f"{what} for {tokens:,} tokens are needed; {_size(free)} of "
            f"{_size(device.memory_total_bytes)} are free on {device.name}",
            _memory_remedy(engine, device, host, needed, weights, token_bytes),
        )
    elif needed > COMFORTABLE_SHARE * free:
        yield _finding(
            Severity.WARNING,
            "MEMORY_TIGHT",
            f"{what} leave only {_size(free - needed)} of {_size(free)} for activations and the "
            "engine itself",
            "free memory, or use a shorter context",
        )


def _memory_remedy(
    engine: Engine, device: Device, host: Host, needed: int, weights: int, token_bytes: int
) -> str:
    if token_bytes and weights < COMFORTABLE_SHARE * device.memory_free_bytes:
        fitting = math.floor((COMFORTABLE_SHARE * device.memory_free_bytes - weights) / token_bytes)
        if fitting:
            return f"limit the context to {fitting:,} tokens"
    cards = host.devices_of(device.kind)
    together = sum(card.memory_free_bytes for card in cards)
    if len(cards) > 1 and needed <= COMFORTABLE_SHARE * together:
        return (
            f"spread it over the {len(cards)} cards, on which {_size(together)} are free: "
            f"{_SPREADING[engine]}"
        )
    if needed <= COMFORTABLE_SHARE * device.memory_total_bytes:
        return f"free {_size(needed - device.memory_free_bytes)} there first"
    return "quantize it to fewer bits, or use a device with more memory"


def _capability(device: Device) -> tuple[int, ...]:
    return capability_of(device.compute_capability) if device.compute_capability else ()


def _from_requirement(unmet: UnmetRequirement) -> Finding:
    return _finding(Severity.ERROR, unmet.reason, unmet.message, unmet.remedy)


def _finding(severity: Severity, reason: str, message: str, remedy: str) -> Finding:
    return Finding(
        severity=severity,
        field="",
        reason=reason,
        message=message,
        remedy=remedy,
        kind="precondition",
    )


def _size(count: int) -> str:
    """Bytes as messages say them: decimal gigabytes."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
