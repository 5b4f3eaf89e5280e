"""`quantization_config` of AWQ: transformers, AutoAWQ, llm-awq."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from quantd_server.methods.configs import AwqConfig
from quantd_server.planning.config_parsing.calibrated import SHARED, backend
from quantd_server.planning.config_parsing.rules import Boolean, Choice, Integer, Names, Number
from quantd_server.planning.config_parsing.table import (
    IDENTITY,
    OTHER_METHOD,
    Breach,
    Field,
    Ignored,
    MethodTable,
)

_READERS = "vLLM and AutoAWQ"


def _check(values: Mapping[str, Any]) -> Iterator[Breach]:
    """The rules between fields of `AwqConfig` in the spec, under their reasons there."""
    if values.get("zero_point") is False and values.get("format", "GEMM") == "GEMM":
        yield Breach(
            "zero_point",
            "AWQ_GEMM_NEEDS_ZERO_POINT",
            "zero_point is false, but format gemm stores zero points",
            "set zero_point to true",
        )


TABLE = MethodTable(
    name="awq",
    quant_method="awq",
    config=AwqConfig,
    fields=(
        Field("bits", Integer(choices=(4,)), ("w_bit",), needed_by=_READERS),
        Field(
            "group_size",
            Integer(choices=(-1, 16, 32, 64, 128)),
            ("q_group_size",),
            needed_by=_READERS,
        ),
        Field("zero_point", Boolean(), needed_by=_READERS),
        Field(
            "format",
            Choice(
                {
                    "gemm": "GEMM",
                    "gemv": "GEMV",
                    "gemv_fast": "GEMV_FAST",
                    "llm-awq": "LLM_AWQ",
                },
                {"llm_awq": "LLM_AWQ"},
            ),
            ("format", "checkpoint_format"),
            json_name="version",
        ),
        Field("modules_to_not_convert", Names()),
        Field("n_grid", Integer(minimum=1, maximum=1000)),
        Field("duo_scaling", Boolean()),
        Field("apply_clip", Boolean()),
        Field("max_shrink", Number(above_minimum=True, maximum=1, below_maximum=True)),
        Field("gptq_solver", Boolean()),
    ),
    ignored=(
        Ignored(("method",), IDENTITY, Choice.of("awq")),
        # transformers writes the fields of GPTQ beside those of AWQ.
        Ignored(
            ("act_group_aware", "desc_act", "sym", "true_sequential", "static_groups"),
            OTHER_METHOD,
            Boolean(),
        ),
        Ignored(("lm_head",), OTHER_METHOD, Boolean(only=False)),
        Ignored(
            ("damp_percent", "damp_auto_increment", "mse"),
            OTHER_METHOD,
            Number(),
        ),
        Ignored(("dynamic",), OTHER_METHOD, matters=True),
        # BACKEND of gptqmodel 7.7; the second line has names that older files carry.
        backend(
            *("auto", "auto_trainable", "vllm", "sglang", "mlx"),
            *("autoawq", "llm-awq", "exllama_v1", "ipex"),
            *("gemm", "gemm_triton", "gemv", "gemv_fast", "torch", "torch_awq", "torch_fused"),
            *("torch_fused_awq", "torch_int8", "torch_int8_awq", "bitblas", "bitblas_awq"),
            *("machete", "marlin", "swordfish", "exllama_v2", "awq_gemm", "awq_gemm_triton"),
            *("awq_gemv", "awq_gemv_fast", "awq_torch_int8", "awq_torch_fused", "awq_torch_aten"),
            *("awq_torch_cpu_avx512", "awq_torch", "awq_bitblas", "awq_machete", "awq_marlin"),
            *("awq_swordfish", "awq_exllama_v2"),
        ),
        *SHARED,
    ),
    check=_check,
)
