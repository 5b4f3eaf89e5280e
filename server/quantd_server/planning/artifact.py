"""A quantized checkpoint, planned or there, as far as the programs that load it care."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from quantd_server.checkpoint.huggingface import HuggingFaceCheckpoint
from quantd_server.checkpoint.layout import TensorRole, model_layout
from quantd_server.checkpoint.opening import Checkpoint, GgufCheckpoint
from quantd_server.methods.base import WorkPlan
from quantd_server.methods.configs import (
    AqlmConfig,
    AwqConfig,
    Bitsandbytes4BitConfig,
    GptqConfig,
    MethodConfig,
)
from quantd_server.methods.gguf.architectures import FAMILIES
from quantd_server.methods.gptq.module_settings import ModuleRules

FUSED = {
    "self_attn.q_proj": "self_attn.qkv_proj",
    "self_attn.k_proj": "self_attn.qkv_proj",
    "self_attn.v_proj": "self_attn.qkv_proj",
    "mlp.gate_proj": "mlp.gate_up_proj",
    "mlp.up_proj": "mlp.gate_up_proj",
}
"""Ends of the names of modules that vLLM and SGLang load as one, and the end of its name there."""


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """What rules about engines look at. A field that is empty or None is not known."""

    method: str
    """As the field of `MethodConfig` is called."""
    quant_storage: str = "UINT8"
    compute_dtype: str = ""
    """Of bitsandbytes_4bit."""
    gguf_architecture: str = ""
    """`general.architecture`."""
    tensor_types: frozenset[str] = frozenset()
    """Types of its tensors, in the words of a .gguf file."""
    bits: frozenset[int] = frozenset()
    group_sizes: frozenset[int] = frozenset()
    symmetric: bool | None = None
    """False when at least one weight is not."""
    desc_act: bool = False
    """Of GPTQ: a weight has a permuted `g_idx`."""
    format: str = ""
    """Of GPTQ and AWQ, as the enumerations of the spec call it."""
    has_module_settings: bool = False
    """Of GPTQ: modules have settings of their own, or are left out by a rule."""
    has_fused_differences: bool = False
    """Of GPTQ: the rules say something else of modules that are loaded as one than of that one."""
    has_quantized_head: bool = False
    has_quantized_experts: bool = False
    shapes: frozenset[tuple[int, int]] = frozenset()
    """[out, in] of the quantized weights."""
    out_group_size: int = 1
    """Of AQLM."""


def planned_artifact(method: MethodConfig, checkpoint: Checkpoint, work: WorkPlan) -> Artifact:
    """What engines would find; ``method`` is resolved."""
    if method.gguf is not None:
        return Artifact(
            method="gguf",
            gguf_architecture=_gguf_architecture(checkpoint),
            tensor_types=frozenset(task.target_type for task in work.tasks),
        )
    if method.name not in ("gptq", "awq", "aqlm"):
        return configured_artifact(method)
    quantized = [task for task in work.tasks if task.action == "QUANTIZE" and task.source]
    names = [task.source.name for task in quantized if task.source]
    roles = _roles(checkpoint, names)
    modules = [name.removesuffix(".weight") for name in names]
    return msgspec.structs.replace(
        configured_artifact(method, modules),
        has_quantized_head=TensorRole.OUTPUT_HEAD in roles,
        has_quantized_experts=TensorRole.EXPERT in roles,
        shapes=frozenset(
            (task.target_shape[0], task.target_shape[1])
            for task in quantized
            if len(task.shape) == 2
        ),
    )


def configured_artifact(method: MethodConfig, modules: Sequence[str] | None = None) -> Artifact:
    """What a configuration alone says; fields of it that are unset are not known.

    ``modules``: those that are quantized, where that is known.
    """
    config = method.value
    if isinstance(config, Bitsandbytes4BitConfig):
        return Artifact(
            method=method.name,
            quant_storage=config.bnb_4bit_quant_storage or "UINT8",
            compute_dtype=config.bnb_4bit_compute_dtype or "",
        )
    if isinstance(config, GptqConfig):
        return _gptq(config, modules)
    if isinstance(config, AwqConfig):
        return Artifact(
            method="awq",
            bits=_known(config.bits),
            group_sizes=_known(config.group_size),
            format=config.format or "",
        )
    if isinstance(config, AqlmConfig):
        return Artifact(method="aqlm", out_group_size=config.out_group_size or 1)
    return Artifact(method=method.name)


def _gptq(config: GptqConfig, modules: Sequence[str] | None) -> Artifact:
    base = Artifact(
        method="gptq",
        bits=_known(config.bits),
        group_sizes=_known(config.group_size),
        symmetric=config.sym,
        desc_act=bool(config.desc_act),
        format=config.format or "",
    )
    if not config.dynamic:
        return base
    if modules is None:  # what the rules say, whether or not they match anything
        rules = [rule for rule in config.dynamic if not rule.exclude]
        return msgspec.structs.replace(
            base,
            bits=base.bits.union(*(_known(rule.bits) for rule in rules)),
            group_sizes=base.group_sizes.union(*(_known(rule.group_size) for rule in rules)),
            symmetric=False if any(rule.sym is False for rule in rules) else config.sym,
            desc_act=base.desc_act or any(rule.desc_act for rule in rules),
            has_module_settings=True,
        )
    chosen = ModuleRules(config)
    found = [settings for name in modules if not isinstance(settings := chosen[name], str)]
    return msgspec.structs.replace(
        base,
        bits=frozenset(settings.bits for settings in found),
        group_sizes=frozenset(settings.group_size for settings in found),
        symmetric=all(settings.sym for settings in found),
        desc_act=any(settings.desc_act for settings in found),
        has_module_settings=True,
        has_fused_differences=any(
            chosen[name] != chosen[fused] for name, fused in _fused_pairs(modules)
        ),
    )


def _fused_pairs(modules: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Names of modules with the name of the one that they become part of."""
    for name in modules:
        for end, fused in FUSED.items():
            if name.endswith(f".{end}"):
                yield name, name.removesuffix(end) + fused


def _roles(checkpoint: Checkpoint, names: Iterable[str]) -> set[TensorRole]:
    if not isinstance(checkpoint, HuggingFaceCheckpoint):
        return set()
    shapes = {name: entry.shape for name, entry in checkpoint.tensors.items()}
    places = model_layout(checkpoint.config, shapes).places
    return {places[name].role for name in names}


def _gguf_architecture(checkpoint: Checkpoint) -> str:
    if isinstance(checkpoint, GgufCheckpoint):
        return checkpoint.architecture
    family = FAMILIES.get(checkpoint.model_type)
    return family.gguf_arch if family else ""


def _known(value: int | None) -> frozenset[int]:
    return frozenset() if value is None else frozenset({value})
