"""Blocks as they stand in the config.json of published checkpoints, and what each of them means.

Written from the documented output of the programs that make them; long lists are shortened.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from quantd_server.methods.configs import (
    AqlmConfig,
    AwqConfig,
    Bitsandbytes4BitConfig,
    Bitsandbytes8BitConfig,
    GgufConfig,
    GgufTensorRule,
    GptqConfig,
    GptqModuleRule,
    MethodConfig,
)


@dataclass(frozen=True)
class Block:
    """One block; ``method`` is None when it is not served or something is wrong with it."""

    name: str
    config: dict[str, Any]
    status: str = "SERVED"
    quant_method: str = ""
    method: MethodConfig | None = None
    canonical: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    """Reasons."""
    unknown: tuple[str, ...] = ()


def known(name: str, quant_method: str, **config: Any) -> Block:
    members = {"quant_method": quant_method, **config}
    return Block(name, members, status="KNOWN", quant_method=quant_method)


def refused(name: str, config: dict[str, Any], quant_method: str, *errors: str) -> Block:
    return Block(name, config, quant_method=quant_method, errors=errors)


# -- bitsandbytes ------------------------------------------------------------------------------

BNB_DEFAULTS = {
    "llm_int8_enable_fp32_cpu_offload": False,
    "llm_int8_has_fp16_weight": False,
    "llm_int8_skip_modules": None,
    "llm_int8_threshold": 6.0,
    "bnb_4bit_compute_dtype": "float32",
    "bnb_4bit_quant_storage": "uint8",
    "bnb_4bit_quant_type": "fp4",
    "bnb_4bit_use_double_quant": False,
    "quant_method": "bitsandbytes",
}
FOUR = {"load_in_4bit": True, "load_in_8bit": False, "_load_in_4bit": True, "_load_in_8bit": False}
EIGHT = {key: not value for key, value in FOUR.items()}


def four_bit(**fields: Any) -> MethodConfig:
    return MethodConfig(bitsandbytes_4bit=Bitsandbytes4BitConfig(**fields))


def eight_bit(**fields: Any) -> MethodConfig:
    return MethodConfig(bitsandbytes_8bit=Bitsandbytes8BitConfig(**fields))


_FOUR_DEFAULTS = {
    "bnb_4bit_compute_dtype": "float32",
    "bnb_4bit_quant_storage": "uint8",
    "bnb_4bit_quant_type": "fp4",
    "bnb_4bit_use_double_quant": False,
    "llm_int8_enable_fp32_cpu_offload": False,
    "load_in_4bit": True,
    "quant_method": "bitsandbytes",
}
_FOUR_TYPED = {
    "bnb_4bit_compute_dtype": "FLOAT32",
    "bnb_4bit_quant_storage": "UINT8",
    "bnb_4bit_quant_type": "FP4",
    "bnb_4bit_use_double_quant": False,
    "llm_int8_enable_fp32_cpu_offload": False,
}
_EIGHT_CANONICAL = {
    "llm_int8_enable_fp32_cpu_offload": False,
    "llm_int8_has_fp16_weight": False,
    "llm_int8_threshold": 6.0,
    "load_in_8bit": True,
    "quant_method": "bitsandbytes",
}
_EIGHT_TYPED = {
    "llm_int8_threshold": 6.0,
    "llm_int8_enable_fp32_cpu_offload": False,
    "llm_int8_has_fp16_weight": False,
}

BITSANDBYTES = [
    Block(
        "bnb-4bit-fp4-defaults",
        {**BNB_DEFAULTS, **FOUR},
        quant_method="bitsandbytes",
        method=four_bit(**_FOUR_TYPED),
        canonical=_FOUR_DEFAULTS,
    ),
    Block(
        "bnb-4bit-nf4-double-quant-bf16",
        {
            **BNB_DEFAULTS,
            **FOUR,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": "bfloat16",
        },
        quant_method="bitsandbytes",
        method=four_bit(
            **{
                **_FOUR_TYPED,
                "bnb_4bit_quant_type": "NF4",
                "bnb_4bit_use_double_quant": True,
                "bnb_4bit_compute_dtype": "BFLOAT16",
            }
        ),
        canonical={
            **_FOUR_DEFAULTS,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": "bfloat16",
        },
    ),
    Block(
        "bnb-4bit-fsdp-storage",
        {
            "load_in_4bit": True,
            "bnb_4bit_quant_storage": "bfloat16",
            "quant_method": "bitsandbytes",
        },
        quant_method="bitsandbytes",
        method=four_bit(bnb_4bit_quant_storage="BFLOAT16"),
        canonical={
            "load_in_4bit": True,
            "bnb_4bit_quant_storage": "bfloat16",
            "quant_method": "bitsandbytes",
        },
    ),
    Block(
        "bnb-4bit-torch-spelling-and-skips",
        {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "bnb_4bit_compute_dtype": "torch.float16",
            "llm_int8_skip_modules": ["lm_head", "vision_tower"],
        },
        quant_method="bitsandbytes",
        method=four_bit(
            bnb_4bit_compute_dtype="FLOAT16", llm_int8_skip_modules=("lm_head", "vision_tower")
        ),
        canonical={
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "bnb_4bit_compute_dtype": "float16",
            "llm_int8_skip_modules": ["lm_head", "vision_tower"],
        },
    ),
    Block(
        "bnb-4bit-without-quant-method",
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        quant_method="bitsandbytes",
        method=four_bit(bnb_4bit_quant_type="NF4"),
        canonical={
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "quant_method": "bitsandbytes",
        },
    ),
    Block(
        "bnb-4bit-private-flags-only",
        {"_load_in_4bit": True, "_load_in_8bit": False, "quant_method": "bitsandbytes"},
        quant_method="bitsandbytes",
        method=four_bit(),
        canonical={"load_in_4bit": True, "quant_method": "bitsandbytes"},
    ),
    Block(
        "bnb-4bit-registered-name",
        {"quant_method": "bitsandbytes_4bit"},
        quant_method="bitsandbytes",
        method=four_bit(),
        canonical={"load_in_4bit": True, "quant_method": "bitsandbytes"},
    ),
    Block(
        "bnb-8bit-defaults",
        {**BNB_DEFAULTS, **EIGHT},
        quant_method="bitsandbytes",
        method=eight_bit(**_EIGHT_TYPED),
        canonical=_EIGHT_CANONICAL,
    ),
    Block(
        "bnb-8bit-before-quant-method",
        {
            "load_in_8bit": True,
            "load_in_4bit": False,
            "llm_int8_threshold": 6.0,
            "llm_int8_skip_modules": None,
            "llm_int8_enable_fp32_cpu_offload": False,
            "llm_int8_has_fp16_weight": False,
        },
        quant_method="bitsandbytes",
        method=eight_bit(**_EIGHT_TYPED),
        canonical=_EIGHT_CANONICAL,
    ),
    Block(
        "bnb-8bit-offload-and-skips",
        {
            "quant_method": "bitsandbytes",
            "load_in_8bit": True,
            "llm_int8_threshold": 5,
            "llm_int8_enable_fp32_cpu_offload": True,
            "llm_int8_skip_modules": ["lm_head"],
        },
        quant_method="bitsandbytes",
        method=eight_bit(
            llm_int8_threshold=5.0,
            llm_int8_enable_fp32_cpu_offload=True,
            llm_int8_skip_modules=("lm_head",),
        ),
        canonical={
            "quant_method": "bitsandbytes",
            "load_in_8bit": True,
            "llm_int8_threshold": 5.0,
            "llm_int8_enable_fp32_cpu_offload": True,
            "llm_int8_skip_modules": ["lm_head"],
        },
    ),
    refused(
        "bnb-both-flags",
        {**BNB_DEFAULTS, "load_in_4bit": True, "load_in_8bit": True},
        "bitsandbytes",
        "BITSANDBYTES_FLAGS_EXCLUSIVE",
    ),
    refused(
        "bnb-8bit-fp16-master-weights",
        {**BNB_DEFAULTS, **EIGHT, "llm_int8_has_fp16_weight": True},
        "bitsandbytes",
        "CONFIG_VALUE_NOT_ALLOWED",
    ),
]

# -- GPTQ --------------------------------------------------------------------------------------


def gptq(**fields: Any) -> MethodConfig:
    return MethodConfig(gptq=GptqConfig(**fields))


_GPTQ_MODEL_META = {
    "quantizer": ["gptqmodel:7.4.0"],
    "uri": "https://github.com/modelcloud/gptqmodel",
    "damp_percent": 0.05,
    "damp_auto_increment": 0.01,
    "static_groups": False,
    "true_sequential": True,
    "mse": 0.0,
    "act_group_aware": True,
}
_GPTQ_MODEL_TYPED = {
    "bits": 4,
    "group_size": 128,
    "damp_percent": 0.05,
    "damp_auto_increment": 0.01,
    "desc_act": False,
    "act_group_aware": True,
    "sym": True,
    "true_sequential": True,
    "static_groups": False,
    "mse": 0.0,
    "lm_head": False,
    "format": "GPTQ",
}
_GPTQ_MODEL = {
    "quant_method": "gptq",
    "method": "gptq",
    "bits": 4,
    "group_size": 128,
    "desc_act": False,
    "sym": True,
    "lm_head": False,
    "format": "gptq",
    "checkpoint_format": "gptq",
    "pack_dtype": "int32",
    "true_sequential": True,
    "damp_percent": 0.05,
    "meta": _GPTQ_MODEL_META,
}
_GPTQ_MODEL_CANONICAL = {
    "quant_method": "gptq",
    "bits": 4,
    "group_size": 128,
    "damp_percent": 0.05,
    "damp_auto_increment": 0.01,
    "desc_act": False,
    "act_group_aware": True,
    "sym": True,
    "true_sequential": True,
    "static_groups": False,
    "mse": 0.0,
    "lm_head": False,
    "checkpoint_format": "gptq",
}
_AUTO_GPTQ = {
    "bits": 4,
    "group_size": 128,
    "damp_percent": 0.1,
    "desc_act": True,
    "static_groups": False,
    "sym": True,
    "true_sequential": True,
    "model_name_or_path": None,
    "model_file_base_name": "model",
}
_AUTO_GPTQ_TYPED = {
    "bits": 4,
    "group_size": 128,
    "damp_percent": 0.1,
    "desc_act": True,
    "static_groups": False,
    "sym": True,
    "true_sequential": True,
}
_AUTO_GPTQ_CANONICAL = {
    "bits": 4,
    "group_size": 128,
    "damp_percent": 0.1,
    "desc_act": True,
    "static_groups": False,
    "sym": True,
    "true_sequential": True,
    "quant_method": "gptq",
}
_OPTIMUM = {
    "quant_method": "gptq",
    "bits": 4,
    "tokenizer": None,
    "dataset": ["a private text"],
    "group_size": 128,
    "damp_percent": 0.1,
    "desc_act": False,
    "act_group_aware": True,
    "sym": True,
    "true_sequential": True,
    "format": "gptq",
    "meta": None,
    "backend": "auto",
    "model_seqlen": None,
    "block_name_to_quantize": None,
    "module_name_preceding_first_block": None,
    "batch_size": 1,
    "pad_token_id": None,
    "max_input_length": None,
    "cache_block_outputs": True,
    "modules_in_block_to_quantize": None,
    "checkpoint_format": "gptq",
}
_OPTIMUM_TYPED = {
    "bits": 4,
    "group_size": 128,
    "damp_percent": 0.1,
    "desc_act": False,
    "act_group_aware": True,
    "sym": True,
    "true_sequential": True,
    "format": "GPTQ",
}
_OPTIMUM_CANONICAL = {
    "bits": 4,
    "group_size": 128,
    "damp_percent": 0.1,
    "desc_act": False,
    "act_group_aware": True,
    "sym": True,
    "true_sequential": True,
    "checkpoint_format": "gptq",
    "quant_method": "gptq",
}
_SHORT = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}
_SHORT_TYPED = {"bits": 4, "group_size": 128, "desc_act": False, "sym": True}

GPTQ = [
    Block(
        "gptqmodel-v1",
        _GPTQ_MODEL,
        quant_method="gptq",
        method=gptq(**_GPTQ_MODEL_TYPED),
        canonical=_GPTQ_MODEL_CANONICAL,
    ),
    Block(
        "gptqmodel-v2",
        {**_GPTQ_MODEL, "format": "gptq_v2", "checkpoint_format": "gptq_v2", "sym": False},
        quant_method="gptq",
        method=gptq(**{**_GPTQ_MODEL_TYPED, "format": "GPTQ_V2", "sym": False}),
        canonical={**_GPTQ_MODEL_CANONICAL, "checkpoint_format": "gptq_v2", "sym": False},
    ),
    Block(
        "gptqmodel-local-paths-in-meta",
        {**_GPTQ_MODEL, "meta": {**_GPTQ_MODEL_META, "offload_to_disk_path": "/home/me/tmp"}},
        quant_method="gptq",
        method=gptq(**_GPTQ_MODEL_TYPED),
        canonical=_GPTQ_MODEL_CANONICAL,
    ),
    Block(
        "gptqmodel-without-quant-method",
        {key: value for key, value in _GPTQ_MODEL.items() if key != "quant_method"},
        quant_method="gptq",
        method=gptq(**_GPTQ_MODEL_TYPED),
        canonical=_GPTQ_MODEL_CANONICAL,
    ),
    Block(
        "gptqmodel-dynamic",
        {
            **_SHORT,
            "dynamic": {
                r"-:lm_head": {},
                r"+:.*\.18\..*gate.*": {"bits": 8, "group_size": 64},
                r".*(?:down_proj)": {"sym": True, "desc_act": False},
            },
        },
        quant_method="gptq",
        method=gptq(
            **_SHORT_TYPED,
            dynamic=(
                GptqModuleRule(pattern="^(?:lm_head)", exclude=True),
                GptqModuleRule(pattern=r"^(?:.*\.18\..*gate.*)", bits=8, group_size=64),
                GptqModuleRule(pattern="down_proj", sym=True, desc_act=False),
            ),
        ),
        canonical={
            **_SHORT,
            "dynamic": {
                r"-:lm_head": {},
                r"+:.*\.18\..*gate.*": {"bits": 8, "group_size": 64},
                r"+:.*(?:down_proj)": {"sym": True, "desc_act": False},
            },
        },
    ),
    Block(
        "autogptq-in-config-json",
        {**_AUTO_GPTQ, "quant_method": "gptq"},
        quant_method="gptq",
        method=gptq(**_AUTO_GPTQ_TYPED),
        canonical=_AUTO_GPTQ_CANONICAL,
    ),
    Block(
        "autogptq-quantize-config-json",
        _AUTO_GPTQ,
        quant_method="gptq",
        method=gptq(**_AUTO_GPTQ_TYPED),
        canonical=_AUTO_GPTQ_CANONICAL,
    ),
    Block(
        "autogptq-0.7",
        {
            **_AUTO_GPTQ,
            "is_marlin_format": False,
            "quant_method": "gptq",
            "checkpoint_format": "gptq",
            "awq_gemm_checkpoint": None,
        },
        quant_method="gptq",
        errors=("UNKNOWN_FIELDS",),
        unknown=("awq_gemm_checkpoint",),
    ),
    Block(
        "autogptq-0.7-checkpoint-format",
        {
            **_AUTO_GPTQ,
            "is_marlin_format": False,
            "quant_method": "gptq",
            "checkpoint_format": "gptq",
        },
        quant_method="gptq",
        method=gptq(**_AUTO_GPTQ_TYPED, format="GPTQ"),
        canonical={**_AUTO_GPTQ_CANONICAL, "checkpoint_format": "gptq"},
    ),
    refused(
        "autogptq-marlin",
        {**_SHORT, "is_marlin_format": True},
        "gptq",
        "CONFIG_VALUE_NOT_ALLOWED",
    ),
    refused(
        "gptqmodel-marlin-format",
        {**_SHORT, "checkpoint_format": "marlin"},
        "gptq",
        "CONFIG_VALUE_NOT_ALLOWED",
    ),
    Block(
        "optimum-with-calibration-texts",
        _OPTIMUM,
        quant_method="gptq",
        method=gptq(**_OPTIMUM_TYPED),
        canonical=_OPTIMUM_CANONICAL,
    ),
    Block(
        "optimum-named-dataset-exllama",
        {
            **_OPTIMUM,
            "dataset": "wikitext2",
            "use_exllama": True,
            "exllama_config": {"version": 1},
            "use_cuda_fp16": False,
            "disable_exllama": False,
        },
        quant_method="gptq",
        method=gptq(**_OPTIMUM_TYPED),
        canonical=_OPTIMUM_CANONICAL,
    ),
    Block(
        "optimum-chosen-modules",
        {
            **_SHORT,
            "modules_in_block_to_quantize": [["self_attn.q_proj"], ["mlp.down_proj"]],
        },
        quant_method="gptq",
        method=gptq(**_SHORT_TYPED),
        canonical=_SHORT,
        warnings=("CONFIG_FIELD_NOT_CARRIED",),
    ),
    Block(
        "gptq-per-channel",
        {**_SHORT, "group_size": -1, "act_group_aware": False},
        quant_method="gptq",
        method=gptq(**{**_SHORT_TYPED, "group_size": -1, "act_group_aware": False}),
        canonical={**_SHORT, "group_size": -1, "act_group_aware": False},
    ),
    Block(
        "gptq-int8",
        {**_SHORT, "bits": 8, "group_size": 32},
        quant_method="gptq",
        method=gptq(**{**_SHORT_TYPED, "bits": 8, "group_size": 32}),
        canonical={**_SHORT, "bits": 8, "group_size": 32},
    ),
    Block(
        "gptq-3bit-1024",
        {**_SHORT, "bits": 3, "group_size": 1024},
        quant_method="gptq",
        method=gptq(**{**_SHORT_TYPED, "bits": 3, "group_size": 1024}),
        canonical={**_SHORT, "bits": 3, "group_size": 1024},
    ),
    Block(
        "gptq-for-llama-spelling",
        {"quant_method": "gptq", "wbits": 4, "groupsize": 128, "desc_act": False, "sym": True},
        quant_method="gptq",
        method=gptq(**_SHORT_TYPED),
        canonical=_SHORT,
    ),
    Block(
        "gptq-asymmetric-without-format",
        {**_SHORT, "sym": False},
        quant_method="gptq",
        method=gptq(**{**_SHORT_TYPED, "sym": False}),
        canonical={**_SHORT, "sym": False},
        warnings=("GPTQ_FORMAT_ASSUMED",),
    ),
    refused(
        "gptq-asymmetric-v1",
        {**_SHORT, "sym": False, "checkpoint_format": "gptq"},
        "gptq",
        "GPTQ_ASYMMETRIC_NEEDS_V2",
    ),
    refused(
        "gptqmodel-planar-5bit",
        {**_SHORT, "bits": 5, "checkpoint_format": "gptq_p"},
        "gptq",
        "CONFIG_VALUE_NOT_ALLOWED",
        "CONFIG_VALUE_NOT_ALLOWED",
    ),
]

# -- AWQ ---------------------------------------------------------------------------------------


def awq(**fields: Any) -> MethodConfig:
    return MethodConfig(awq=AwqConfig(**fields))


_AWQ = {
    "quant_method": "awq",
    "bits": 4,
    "group_size": 128,
    "zero_point": True,
    "version": "gemm",
}
_AWQ_TYPED = {"bits": 4, "group_size": 128, "zero_point": True, "format": "GEMM"}


def awq_like(name: str, config: dict[str, Any], *warnings: str, **changes: Any) -> Block:
    """A block that means plain AWQ but for ``changes`` of the typed configuration."""
    typed = {**_AWQ_TYPED, **changes}
    canonical = {**_AWQ, **{k: v for k, v in changes.items() if k != "format"}}
    if "format" in changes:
        canonical["version"] = changes["format"].lower().replace("llm_awq", "llm-awq")
    if "modules_to_not_convert" in changes:
        canonical["modules_to_not_convert"] = list(changes["modules_to_not_convert"])
    return Block(
        name,
        config,
        quant_method="awq",
        method=awq(**typed),
        canonical=canonical,
        warnings=warnings,
    )


AWQ = [
    awq_like("awq-in-config-json", {**_AWQ, "modules_to_not_convert": None}),
    awq_like("awq-upper-case", {**_AWQ, "version": "GEMM"}),
    awq_like(
        "autoawq-quant-config-json",
        {"zero_point": True, "q_group_size": 128, "w_bit": 4, "version": "GEMM"},
    ),
    awq_like(
        "autoawq-with-kept-modules",
        {**_AWQ, "modules_to_not_convert": ["gate", "visual"]},
        modules_to_not_convert=("gate", "visual"),
    ),
    awq_like("awq-gemv", {**_AWQ, "version": "gemv"}, format="GEMV"),
    awq_like("awq-gemv-fast", {**_AWQ, "version": "gemv_fast"}, format="GEMV_FAST"),
    awq_like(
        "llm-awq",
        {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
        | {"version": "llm-awq", "backend": "llm-awq"},
        format="LLM_AWQ",
    ),
    awq_like("awq-group-64", {**_AWQ, "group_size": 64}, group_size=64),
    awq_like(
        "awq-of-transformers-5",
        {**_OPTIMUM, "quant_method": "awq", "zero_point": True, "format": "gemm"}
        | {"version": "gemm", "checkpoint_format": "gemm", "modules_to_not_convert": None}
        | {"dataset": None},
    ),
    awq_like(
        "gptqmodel-awq",
        {**_AWQ, "method": "awq", "format": "gemm", "sym": False, "desc_act": False}
        | {"lm_head": False, "pack_dtype": "int32", "meta": {"quantizer": ["gptqmodel:7.4.0"]}},
    ),
    awq_like(
        "awq-fused-for-inference",
        {**_AWQ, "do_fuse": True, "fuse_max_seq_len": 512, "modules_to_fuse": None}
        | {"exllama_config": None},
    ),
    refused("awq-marlin", {**_AWQ, "version": "marlin"}, "awq", "CONFIG_VALUE_NOT_ALLOWED"),
    refused(
        "awq-symmetric-gemm", {**_AWQ, "zero_point": False}, "awq", "AWQ_GEMM_NEEDS_ZERO_POINT"
    ),
]

# -- AQLM --------------------------------------------------------------------------------------


def aqlm(num_codebooks: int, nbits: int, in_group: int, *kept: str) -> Block:
    config = {
        "quant_method": "aqlm",
        "in_group_size": in_group,
        "out_group_size": 1,
        "num_codebooks": num_codebooks,
        "nbits_per_codebook": nbits,
    }
    method = AqlmConfig(
        num_codebooks=num_codebooks,
        nbits_per_codebook=nbits,
        in_group_size=in_group,
        out_group_size=1,
        linear_weights_not_to_quantize=kept,
    )
    return Block(
        f"aqlm-{num_codebooks}x{nbits}-g{in_group}",
        {**config, "linear_weights_not_to_quantize": list(kept)},
        quant_method="aqlm",
        method=MethodConfig(aqlm=method),
        canonical={**config, **({"linear_weights_not_to_quantize": list(kept)} if kept else {})},
    )


AQLM = [
    aqlm(1, 16, 8, "model.embed_tokens.weight", "lm_head.weight"),
    aqlm(2, 8, 8, "lm_head.weight"),
    aqlm(1, 8, 8),
    aqlm(1, 16, 16),
]

# -- GGUF --------------------------------------------------------------------------------------

GGUF = [
    Block(
        "gguf-of-transformers",
        {"quant_method": "gguf", "gguf_file": "model-Q4_K_M.gguf", "dequantize": False},
        quant_method="gguf",
        method=MethodConfig(gguf=GgufConfig()),
        canonical={"quant_method": "gguf"},
    ),
    Block(
        "gguf-of-quantd",
        {
            "quant_method": "gguf",
            "file_type": "q4_k_m",
            "output_tensor_type": "Q8_0",
            "tensor_types": [{"pattern": "attn_v", "type": "Q6_K"}],
        },
        quant_method="gguf",
        method=MethodConfig(
            gguf=GgufConfig(
                file_type="Q4_K_M",
                output_tensor_type="Q8_0",
                tensor_types=(GgufTensorRule(pattern="attn_v", type="Q6_K"),),
            )
        ),
        canonical={
            "quant_method": "gguf",
            "file_type": "Q4_K_M",
            "output_tensor_type": "Q8_0",
            "tensor_types": [{"pattern": "attn_v", "type": "Q6_K"}],
        },
    ),
]

# -- not served --------------------------------------------------------------------------------

_GROUP = {
    "group_0": {
        "targets": ["Linear"],
        "weights": {"num_bits": 4, "type": "int", "symmetric": True, "group_size": 128},
        "input_activations": None,
        "output_activations": None,
    }
}
OTHERS = [
    known(
        "compressed-tensors-w4a16",
        "compressed-tensors",
        format="pack-quantized",
        config_groups=_GROUP,
        ignore=["lm_head"],
        quantization_status="compressed",
    ),
    known(
        "compressed-tensors-fp8-dynamic",
        "compressed-tensors",
        format="float-quantized",
        config_groups=_GROUP,
        kv_cache_scheme=None,
    ),
    known(
        "compressed-tensors-nvfp4",
        "compressed-tensors",
        format="nvfp4-pack-quantized",
        config_groups=_GROUP,
    ),
    Block(
        "compressed-tensors-without-name",
        {"config_groups": _GROUP, "format": "int-quantized"},
        status="KNOWN",
        quant_method="compressed-tensors",
    ),
    known(
        "fp8-deepseek", "fp8", fmt="e4m3", weight_block_size=[128, 128], activation_scheme="dynamic"
    ),
    known("fp8-vllm-static", "fp8", activation_scheme="static", ignored_layers=["lm_head"]),
    known(
        "fbgemm-fp8", "fbgemm_fp8", activation_scale_ub=1200.0, modules_to_not_convert=["lm_head"]
    ),
    known("mxfp4-gpt-oss", "mxfp4", modules_to_not_convert=["model.layers.*.self_attn"]),
    known("hqq", "hqq", quant_config={"weight_quant_params": {"nbits": 4, "group_size": 64}}),
    known("torchao-int4", "torchao", quant_type="int4_weight_only", quant_type_kwargs={}),
    known("torchao-config", "torchao", quant_type={"default": {"_type": "Int4WeightOnlyConfig"}}),
    known("quanto", "quanto", weights="int8", activations=None, modules_to_not_convert=None),
    known("higgs", "higgs", bits=4, p=2, group_size=256, hadamard_size=512),
    known("eetq", "eetq", weights="int8", modules_to_not_convert=["lm_head"]),
    known("vptq", "vptq", config_for_layers={}, shared_layer_config={}),
    known("spqr", "spqr", bits=3, beta1=16, beta2=16, shapes={}),
    known("bitnet", "bitnet", linear_class="bitlinear", quantization_mode="offline"),
    known(
        "auto-round",
        "auto-round",
        bits=4,
        group_size=128,
        sym=True,
        packing_format="auto_round:auto_gptq",
    ),
    known("quark", "quark", export={"kv_cache_group": []}, global_quant_config={}),
    known("modelopt-fp8", "modelopt", quant_algo="FP8", producer={"name": "modelopt"}),
    known("modelopt-nvfp4", "modelopt_fp4", quant_algo="NVFP4", ignore=["lm_head"]),
    Block(
        "modelopt-hf-quant-config-json",
        {
            "producer": {"name": "modelopt", "version": "0.29.0"},
            "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"},
        },
        status="KNOWN",
        quant_method="modelopt",
    ),
    known("fp-quant", "fp_quant", forward_dtype="nvfp4", hadamard_group_size=16),
    known("experts-int8", "experts_int8"),
    known("metal", "metal", bits=4, group_size=64),
    known("sinq", "sinq", nbits=4, group_size=64, method="sinq"),
    known("qqq", "qqq", wbits=4, group_size=128),
    Block(
        "a-name-of-nobody",
        {"quant_method": "q4_best"},
        status="UNKNOWN",
        quant_method="q4_best",
        errors=("QUANT_METHOD_UNKNOWN",),
    ),
]

BLOCKS = [*BITSANDBYTES, *GPTQ, *AWQ, *AQLM, *GGUF, *OTHERS]
