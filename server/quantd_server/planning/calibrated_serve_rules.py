"""What engines make of GPTQ, AWQ and AQLM checkpoints.

Facts: `auto_gptq`, `gptq_marlin`, `awq_marlin` and `marlin_utils` of vLLM, `gptq` of SGLang,
`optimum.gptq` 2.3, which transformers loads GPTQ with, and the kernels of `aqlm` 1.1.
"""

from __future__ import annotations

from quantd_server.errors import Severity
from quantd_server.planning.artifact import Artifact
from quantd_server.planning.serve_rule import Capability, Rule, engines

MARLIN_GROUP_SIZES = frozenset({-1, 32, 64, 128})
MARLIN_BITS = frozenset({4, 8})
MARLIN_OUTPUT, MARLIN_INPUT = 64, 128
"""Multiples that its tiles ask for in the dimensions of a weight."""

_GPTQ = frozenset({"gptq"})
_AWQ = frozenset({"awq"})
_AQLM = frozenset({"aqlm"})
_INT4 = _GPTQ | _AWQ


def _is_beyond_marlin(artifact: Artifact, _: Capability = ()) -> bool:
    return _has_other_grid(artifact) or _has_other_groups(artifact)


def _has_other_grid(artifact: Artifact, _: Capability = ()) -> bool:
    return not artifact.bits <= MARLIN_BITS or artifact.symmetric is False


def _has_other_groups(artifact: Artifact, _: Capability = ()) -> bool:
    return not artifact.group_sizes <= MARLIN_GROUP_SIZES


def _has_odd_shapes(artifact: Artifact, _: Capability = ()) -> bool:
    return any(rows % MARLIN_OUTPUT or columns % MARLIN_INPUT for rows, columns in artifact.shapes)


CALIBRATED_RULES = (
    Rule(
        reason="ENGINE_PLUGIN_NEEDED",
        severity=Severity.WARNING,
        engines=engines("TRANSFORMERS"),
        methods=_GPTQ,
        message="{engine} reads GPTQ with the packages optimum and gptqmodel",
        remedy="pip install 'optimum>=1.24' 'gptqmodel>=1.4.3' where it is served",
    ),
    Rule(
        reason="MODULE_SETTINGS_NOT_READ",
        severity=Severity.ERROR,
        engines=engines("TRANSFORMERS"),
        methods=_GPTQ,
        applies=lambda artifact, _: artifact.has_module_settings,
        message="{engine} takes every linear layer of a block for one with the same settings; it "
        "does not know dynamic",
        remedy="leave dynamic out, or serve it with vLLM or SGLang",
    ),
    Rule(
        reason="OUTPUT_HEAD_NOT_READ",
        severity=Severity.ERROR,
        engines=engines("TRANSFORMERS"),
        methods=_GPTQ,
        applies=lambda artifact, _: artifact.has_quantized_head,
        message="{engine} looks for quantized layers in the decoder blocks only, so it does not "
        "find the output head",
        remedy="leave lm_head out",
    ),
    Rule(
        reason="EXPERTS_NOT_READ",
        severity=Severity.ERROR,
        engines=engines("TRANSFORMERS"),
        methods=_INT4,
        applies=lambda artifact, _: artifact.has_quantized_experts,
        message="{engine} holds experts outside of linear layers, which are all that it replaces "
        "by quantized ones",
        remedy="serve it with vLLM, or leave the experts out",
    ),
    Rule(
        reason="GPTQ_GRID_NOT_READ",
        severity=Severity.ERROR,
        engines=engines("VLLM"),
        methods=_GPTQ,
        applies=_has_other_grid,
        message="{engine} reads GPTQ weights of 4 and 8 bits on a symmetric grid only",
        remedy="set bits to 4 or 8, and sym to true",
    ),
    Rule(
        reason="GROUP_SIZE_NOT_READ",
        severity=Severity.ERROR,
        engines=engines("VLLM"),
        methods=_GPTQ,
        applies=_has_other_groups,
        message="{engine} reads GPTQ weights with a group_size of -1, 32, 64 or 128 only",
        remedy="set group_size to 128, 64 or 32, or to -1",
    ),
    Rule(
        reason="GPTQ_V2_NOT_READ",
        severity=Severity.ERROR,
        engines=engines("SGLANG"),
        methods=_GPTQ,
        applies=lambda artifact, _: artifact.format == "GPTQ_V2" and _is_beyond_marlin(artifact),
        message="{engine} takes zero points for those of format GPTQ where its Marlin kernels do "
        "not apply (4 and 8 bits, symmetric, group_size -1, 32, 64 or 128), so it would compute "
        "with wrong ones",
        remedy="set sym to true and format to GPTQ",
    ),
    Rule(
        reason="MARLIN_NOT_USED",
        severity=Severity.WARNING,
        engines=engines("SGLANG"),
        methods=_GPTQ,
        applies=lambda artifact, _: artifact.format != "GPTQ_V2" and _is_beyond_marlin(artifact),
        message="{engine} has Marlin kernels for 4 and 8 bits on a symmetric grid with a "
        "group_size of -1, 32, 64 or 128; with other settings it computes in float16, slower",
        remedy="set bits to 4 or 8, sym to true and group_size to 128, 64 or 32",
    ),
    Rule(
        reason="MARLIN_NOT_USED",
        severity=Severity.WARNING,
        engines=engines("VLLM"),
        methods=_GPTQ,
        applies=lambda _, capability: bool(capability) and capability < (7, 5),
        message="the Marlin kernels of {engine} need compute capability 7.5; on older cards its "
        "older versions compute in float16, slower, and newer ones refuse",
        remedy="use a newer card, or another method",
    ),
    Rule(
        reason="MARLIN_NOT_USED",
        severity=Severity.WARNING,
        engines=engines("VLLM", "SGLANG"),
        methods=_AWQ,
        applies=_has_other_groups,
        message="{engine} has Marlin kernels for a group_size of -1, 32, 64 or 128; with another "
        "one it uses slower ones",
        remedy="set group_size to 128, 64 or 32",
    ),
    Rule(
        reason="MARLIN_SHAPE",
        severity=Severity.WARNING,
        engines=engines("VLLM"),
        methods=_INT4,
        applies=_has_odd_shapes,
        message=f"weights whose output dimension is no multiple of {MARLIN_OUTPUT}, or whose input "
        f"dimension is no multiple of {MARLIN_INPUT}, do not fill the tiles of Marlin: newer "
        "versions of {engine} pad them, older ones use slower kernels, in float16 only",
        remedy="use a new version, or leave these modules out",
    ),
    Rule(
        reason="FUSED_MODULES_DIFFER",
        severity=Severity.ERROR,
        engines=engines("VLLM", "SGLANG"),
        methods=_GPTQ,
        applies=lambda artifact, _: artifact.has_fused_differences,
        message="{engine} loads q_proj, k_proj and v_proj as qkv_proj, and gate_proj and up_proj "
        "as gate_up_proj, and looks for the rules of these names; dynamic says something else of "
        "the single modules",
        remedy="write rules that match all modules of a group and its name alike, such as "
        "self_attn\\.(q|k|v|qkv)_proj",
    ),
    Rule(
        reason="ACTIVATION_ORDER_SLOW",
        severity=Severity.WARNING,
        engines=engines("TRANSFORMERS", "VLLM", "SGLANG"),
        methods=_GPTQ,
        applies=lambda artifact, _: artifact.desc_act and artifact.group_sizes != {-1},
        message="with desc_act the input channels of a group lie apart, and {engine} has to gather "
        "them for every product",
        remedy="use act_group_aware instead of desc_act",
    ),
    Rule(
        reason="ENGINE_PLUGIN_NEEDED",
        severity=Severity.WARNING,
        engines=engines("TRANSFORMERS"),
        methods=_AWQ,
        message="{engine} reads AWQ with the package gptqmodel",
        remedy="pip install gptqmodel where it is served",
    ),
    Rule(
        reason="AWQ_FORMAT_NOT_READ",
        severity=Severity.ERROR,
        engines=engines("VLLM", "SGLANG"),
        methods=_AWQ,
        applies=lambda artifact, _: artifact.format not in ("", "GEMM"),
        message="{engine} reads AWQ weights in the format gemm only",
        remedy="convert the checkpoint to gemm, or serve it with transformers",
    ),
    Rule(
        reason="ENGINE_PLUGIN_NEEDED",
        severity=Severity.WARNING,
        engines=engines("TRANSFORMERS"),
        methods=_AQLM,
        message="{engine} reads AQLM with the package aqlm",
        remedy="pip install 'aqlm[gpu,cpu]' where it is served",
    ),
    Rule(
        reason="AQLM_KERNEL_MISSING",
        severity=Severity.WARNING,
        engines=engines("TRANSFORMERS"),
        methods=_AQLM,
        applies=lambda artifact, _: artifact.out_group_size != 1,
        message="the kernels of AQLM take groups of one output channel; {engine} makes floats of "
        "other ones for every product, which is slow",
        remedy="set out_group_size to 1",
    ),
)
