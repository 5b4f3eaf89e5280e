"""The typed configuration of each method, as `MethodConfig` in the spec has it.

Enumerations are the spec's value names without their prefix ("NF4", "Q4_K_M"). A field that is
None has not been set; ``Method.resolve`` fills it.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec

Config = TypeVar("Config", bound=msgspec.Struct)

FourBitType = Literal["FP4", "NF4"]
ComputeDtype = Literal["FLOAT32", "FLOAT16", "BFLOAT16"]
QuantStorage = Literal["UINT8", "INT8", "FLOAT16", "BFLOAT16", "FLOAT32", "FLOAT64"]


class Bitsandbytes8BitConfig(msgspec.Struct, frozen=True, kw_only=True):
    """LLM.int8; see `Bitsandbytes8BitConfig` in the spec."""

    llm_int8_threshold: float | None = None
    llm_int8_skip_modules: tuple[str, ...] = ()
    llm_int8_enable_fp32_cpu_offload: bool | None = None
    llm_int8_has_fp16_weight: bool | None = None


class Bitsandbytes4BitConfig(msgspec.Struct, frozen=True, kw_only=True):
    """NF4 and FP4; see `Bitsandbytes4BitConfig` in the spec."""

    bnb_4bit_quant_type: FourBitType | None = None
    bnb_4bit_compute_dtype: ComputeDtype | None = None
    bnb_4bit_use_double_quant: bool | None = None
    bnb_4bit_quant_storage: QuantStorage | None = None
    blocksize: int | None = None
    llm_int8_skip_modules: tuple[str, ...] = ()
    llm_int8_enable_fp32_cpu_offload: bool | None = None


GptqFormat = Literal["GPTQ", "GPTQ_V2"]


class GptqModuleRule(msgspec.Struct, frozen=True, kw_only=True):
    """Settings for the modules whose name matches a pattern (RE2, searched)."""

    pattern: str
    exclude: bool = False
    bits: int | None = None
    group_size: int | None = None
    sym: bool | None = None
    desc_act: bool | None = None


class GptqConfig(msgspec.Struct, frozen=True, kw_only=True):
    """GPTQ; see `GptqConfig` in the spec."""

    bits: int | None = None
    group_size: int | None = None
    damp_percent: float | None = None
    damp_auto_increment: float | None = None
    desc_act: bool | None = None
    act_group_aware: bool | None = None
    sym: bool | None = None
    true_sequential: bool | None = None
    static_groups: bool | None = None
    mse: float | None = None
    block_size: int | None = None
    lm_head: bool | None = None
    format: GptqFormat | None = None
    dynamic: tuple[GptqModuleRule, ...] = ()
    awq_scaling: bool | None = None
    max_shrink: float | None = None


AwqFormat = Literal["GEMM", "GEMV", "GEMV_FAST", "LLM_AWQ"]


class AwqConfig(msgspec.Struct, frozen=True, kw_only=True):
    """AWQ; see `AwqConfig` in the spec."""

    bits: int | None = None
    group_size: int | None = None
    zero_point: bool | None = None
    format: AwqFormat | None = None
    modules_to_not_convert: tuple[str, ...] = ()
    n_grid: int | None = None
    duo_scaling: bool | None = None
    apply_clip: bool | None = None
    max_shrink: float | None = None
    gptq_solver: bool | None = None


class AqlmConfig(msgspec.Struct, frozen=True, kw_only=True):
    """AQLM; see `AqlmConfig` in the spec."""

    num_codebooks: int | None = None
    nbits_per_codebook: int | None = None
    in_group_size: int | None = None
    out_group_size: int | None = None
    linear_weights_not_to_quantize: tuple[str, ...] = ()
    relative_mse_tolerance: float | None = None
    max_epochs: int | None = None
    steps_per_epoch: int | None = None
    lr: float | None = None
    beam_size: int | None = None
    init_max_iter: int | None = None
    init_max_points_per_centroid: int | None = None
    finetune_max_epochs: int | None = None
    finetune_lr: float | None = None
    finetune_batch_size: int | None = None
    finetune_early_stop: int | None = None


class GgufTensorRule(msgspec.Struct, frozen=True, kw_only=True):
    """A type for the tensors whose name matches a pattern (RE2, searched)."""

    pattern: str
    type: str


class GgufConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A .gguf file; see `GgufConfig` in the spec."""

    file_type: str | None = None
    output_tensor_type: str | None = None
    token_embedding_type: str | None = None
    tensor_types: tuple[GgufTensorRule, ...] = ()
    pure: bool | None = None
    imatrix_uri: str | None = None


AnyConfig = (
    Bitsandbytes8BitConfig
    | Bitsandbytes4BitConfig
    | GptqConfig
    | AwqConfig
    | GgufConfig
    | AqlmConfig
)


class MethodConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Exactly one of these is set, whether or not this server can quantize with it."""

    bitsandbytes_8bit: Bitsandbytes8BitConfig | None = None
    bitsandbytes_4bit: Bitsandbytes4BitConfig | None = None
    gptq: GptqConfig | None = None
    awq: AwqConfig | None = None
    gguf: GgufConfig | None = None
    aqlm: AqlmConfig | None = None

    @property
    def name(self) -> str:
        """Name of the field that is set."""
        return next(name for name in self.__struct_fields__ if getattr(self, name) is not None)

    @property
    def value(self) -> AnyConfig:
        """The configuration that is set."""
        return getattr(self, self.name)

    @classmethod
    def of(cls, name: str, value: object) -> MethodConfig:
        """The message with the field ``name`` set to ``value``."""
        return cls(**{name: value})  # type: ignore[arg-type]


def filled(config: Config, defaults: Config) -> Config:
    """``config`` with the value of ``defaults`` in every field that has not been set."""
    unset = {
        field: getattr(defaults, field)
        for field in config.__struct_fields__
        if getattr(config, field) in (None, ())
    }
    return msgspec.structs.replace(config, **unset)
