"""`quantization_config` of GPTQ: transformers, GPTQModel, and AutoGPTQ's quantize_config.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from quantd_server.errors import Severity
from quantd_server.methods.configs import GptqConfig
from quantd_server.planning.config_parsing.calibrated import SHARED, backend
from quantd_server.planning.config_parsing.gptq_modules import BITS, GROUP_SIZE, ModuleRules
from quantd_server.planning.config_parsing.rules import Boolean, Choice, Integer, Number
from quantd_server.planning.config_parsing.table import (
    IDENTITY,
    Breach,
    Field,
    Ignored,
    MethodTable,
)

_READERS = "transformers and vLLM"


def _check(values: Mapping[str, Any]) -> Iterator[Breach]:
    """The rules between fields of `GptqConfig` in the spec, under their reasons there."""
    if values.get("act_group_aware"):
        if values.get("desc_act"):
            yield Breach(
                "act_group_aware",
                "GPTQ_ACT_ORDER_EXCLUSIVE",
                "desc_act and act_group_aware are two activation orders, and both are true",
                "set one of them to false",
            )
        if values.get("group_size") == -1:
            yield Breach(
                "act_group_aware",
                "GPTQ_ACT_GROUP_AWARE_NEEDS_GROUPS",
                "act_group_aware is true, but it orders groups, and group_size -1 makes none",
                "set act_group_aware to false, or give a group_size such as 128",
            )
    if values.get("max_shrink"):
        if values.get("static_groups") is False:
            yield Breach(
                "max_shrink",
                "GPTQ_MAX_SHRINK_NEEDS_STATIC_GROUPS",
                "max_shrink clips fixed groups, and static_groups is false",
                "set static_groups to true, or max_shrink to 0",
            )
        if values.get("mse"):
            yield Breach(
                "max_shrink",
                "GPTQ_ONE_RANGE_SEARCH",
                "mse and max_shrink are two searches for ranges, and both are above 0",
                "set one of them to 0",
            )
    if values.get("sym") is False:
        if values.get("format") == "GPTQ":
            yield Breach(
                "format",
                "GPTQ_ASYMMETRIC_NEEDS_V2",
                "format gptq stores zero points minus one and cannot hold the 0 of an asymmetric "
                "grid (sym is false)",
                "use gptq_v2, or set sym to true",
            )
        elif "format" not in values:
            yield Breach(
                "format",
                "GPTQ_FORMAT_ASSUMED",
                "no format is said; quantd takes gptq_v2 for an asymmetric grid, other readers "
                "take gptq",
                "say checkpoint_format",
                severity=Severity.WARNING,
            )


TABLE = MethodTable(
    name="gptq",
    quant_method="gptq",
    config=GptqConfig,
    fields=(
        Field("bits", BITS, ("w_bit", "wbits"), needed_by=_READERS),
        Field("group_size", GROUP_SIZE, ("q_group_size", "groupsize"), needed_by=_READERS),
        Field(
            "damp_percent",
            Number(above_minimum=True, maximum=1, below_maximum=True),
            ("meta.damp_percent",),
        ),
        Field(
            "damp_auto_increment",
            Number(maximum=1, below_maximum=True),
            ("meta.damp_auto_increment",),
        ),
        Field("desc_act", Boolean(), needed_by=_READERS),
        Field("act_group_aware", Boolean(), ("meta.act_group_aware",)),
        Field("sym", Boolean(), needed_by=_READERS),
        Field("true_sequential", Boolean(), ("meta.true_sequential",)),
        Field("static_groups", Boolean(), ("meta.static_groups",)),
        Field("mse", Number(maximum=8), ("meta.mse",)),
        Field("block_size", Integer(minimum=16, maximum=4096), ("meta.block_size",)),
        Field("lm_head", Boolean()),
        Field(
            "format",
            Choice({"gptq": "GPTQ", "gptq_v2": "GPTQ_V2"}, {"gptqv1": "GPTQ", "gptqv2": "GPTQ_V2"}),
            ("format",),
            json_name="checkpoint_format",
        ),
        Field("dynamic", ModuleRules()),
        Field("awq_scaling", Boolean(), ("meta.awq_scaling",)),
        Field("max_shrink", Number(maximum=1, below_maximum=True), ("meta.max_shrink",)),
    ),
    ignored=(
        Ignored(("method",), IDENTITY, Choice.of("gptq")),
        # AutoGPTQ's converted checkpoints: another layout of the weights, which nothing reads now.
        Ignored(("is_marlin_format",), IDENTITY, Boolean(only=False)),
        # BACKEND of gptqmodel 7.7; the second line has names of its versions before 7 and of
        # transformers' own that files still carry.
        backend(
            *("auto", "auto_trainable", "vllm", "sglang", "mlx"),
            *("exllama_v1", "exllama_eora", "ipex", "marlin_fp16"),
            *("torch", "torch_fused", "torch_int8", "triton", "exllama_v2", "machete", "swordfish"),
            *("marlin", "bitblas", "gptq_torch", "gptq_torch_fused", "gptq_torch_int8"),
            *("gptq_torch_aten", "gptq_torch_cpu_avx512", "gptq_triton", "gptq_exllama_v2"),
            *("gptq_machete", "gptq_swordfish", "gptq_marlin", "gptq_w4afp8", "gptq_w4a_nvfp4"),
            "gptq_bitblas",
        ),
        *SHARED,
    ),
    check=_check,
)
