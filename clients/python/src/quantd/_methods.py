"""Builders of `MethodConfig`, one for each method.

A builder is nothing but a constructor of the message: what it leaves out is filled by the server,
which also checks the values. Names are those of Hugging Face's `quantization_config`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from quantd import v1
from quantd._messages import fill

METHODS: tuple[str, ...] = tuple(
    field.name for field in v1.MethodConfig.DESCRIPTOR.oneofs_by_name["config"].fields
)
"""Names of the methods, as `MethodConfig` spells them."""


def bitsandbytes_8bit(
    *,
    llm_int8_threshold: float | None = None,
    llm_int8_skip_modules: Iterable[str] = (),
    llm_int8_enable_fp32_cpu_offload: bool | None = None,
    llm_int8_has_fp16_weight: bool | None = None,
) -> v1.MethodConfig:
    """LLM.int8: int8 codes with one scale a row.

    Args:
        llm_int8_threshold: Activation-outlier threshold that the reader applies. Default 6.0.
        llm_int8_skip_modules: Modules to leave as they are; replaces the default (output head).
        llm_int8_enable_fp32_cpu_offload: Lets the reader keep modules in float32 on the CPU.
        llm_int8_has_fp16_weight: Only False is accepted.

    Returns:
        The configuration.
    """
    return method_config("bitsandbytes_8bit", **locals())


def bitsandbytes_4bit(
    bnb_4bit_quant_type: str | None = None,
    *,
    bnb_4bit_compute_dtype: str | None = None,
    bnb_4bit_use_double_quant: bool | None = None,
    bnb_4bit_quant_storage: str | None = None,
    blocksize: int | None = None,
    llm_int8_skip_modules: Iterable[str] = (),
    llm_int8_enable_fp32_cpu_offload: bool | None = None,
) -> v1.MethodConfig:
    """NF4 and FP4: 4-bit codes with one scale a block.

    Args:
        bnb_4bit_quant_type: "nf4" or "fp4". Default "fp4".
        bnb_4bit_compute_dtype: "float32", "float16" or "bfloat16"; the reader multiplies in it.
        bnb_4bit_use_double_quant: Whether the scales are quantized too. Default False.
        bnb_4bit_quant_storage: Type the packed codes are stored under. Default "uint8".
        blocksize: Weights per scale. Default 64.
        llm_int8_skip_modules: Modules to leave as they are; replaces the default (output head).
        llm_int8_enable_fp32_cpu_offload: Lets the reader keep modules in float32 on the CPU.

    Returns:
        The configuration.

    Raises:
        ValueError: A name is not one of those above.
    """
    return method_config("bitsandbytes_4bit", **locals())


def gguf(
    file_type: str | None = None,
    *,
    output_tensor_type: str | None = None,
    token_embedding_type: str | None = None,
    tensor_types: Mapping[str, str] | None = None,
    pure: bool | None = None,
    imatrix_uri: str | None = None,
) -> v1.MethodConfig:
    r"""A .gguf file for llama.cpp.

    Args:
        file_type: The recipe, such as "Q4_K_M" (the default), "Q8_0" or "BF16".
        output_tensor_type: Type of the output head, such as "Q8_0".
        token_embedding_type: Type of the token embeddings.
        tensor_types: Types by pattern of the tensor's name in the .gguf file (RE2, searched); the
            first that matches wins. Example: `{r"attn_v\.weight$": "Q6_K"}`.
        pure: Gives every tensor the base type of the recipe. Default False.
        imatrix_uri: Importance matrix on the server.

    Returns:
        The configuration.

    Raises:
        ValueError: A type is not known.
    """
    given = dict(locals())
    given["tensor_types"] = [
        {"pattern": pattern, "type": type_} for pattern, type_ in (tensor_types or {}).items()
    ]
    return method_config("gguf", **given)


def gptq(
    bits: int | None = None,
    *,
    group_size: int | None = None,
    damp_percent: float | None = None,
    damp_auto_increment: float | None = None,
    desc_act: bool | None = None,
    act_group_aware: bool | None = None,
    sym: bool | None = None,
    true_sequential: bool | None = None,
    static_groups: bool | None = None,
    mse: float | None = None,
    block_size: int | None = None,
    lm_head: bool | None = None,
    format: str | None = None,  # noqa: A002 - the name in quantization_config
    dynamic: Iterable[Mapping[str, Any]] = (),
    awq_scaling: bool | None = None,
    max_shrink: float | None = None,
) -> v1.MethodConfig:
    """GPTQ: second-order rounding on calibration data.

    Args:
        bits: 2, 3, 4 or 8. Default 4.
        group_size: Weights per scale; -1 means one scale a row. Default 128.
        damp_percent: Damping of the second moment, as a fraction of its mean. Default 0.05.
        damp_auto_increment: Step by which damping grows when it has to. Default 0.01.
        desc_act: Whether columns go in decreasing order of activation. Default False.
        act_group_aware: Whether columns are ordered inside groups. Default True.
        sym: Symmetric grid. Default True.
        true_sequential: Whether the linears of a block are quantized in stages. Default True.
        static_groups: Whether scales are fixed before errors propagate. Default: not `desc_act`.
        mse: Exponent of the scale search; 0 turns it off. Default 0.
        block_size: Columns solved together. Default 128.
        lm_head: Whether the output head is quantized too. Default False.
        format: "gptq" or "gptq_v2".
        dynamic: Settings by module, each a mapping with the fields of `GptqModuleRule`.
        awq_scaling: Whether channels are scaled as AWQ does before solving. Default False.
        max_shrink: Largest part of a range that may be cut off where that helps. Default 0.5.

    Returns:
        The configuration.

    Raises:
        ValueError: A value does not fit its field.
    """
    return method_config("gptq", **locals())


def awq(
    bits: int | None = None,
    *,
    group_size: int | None = None,
    zero_point: bool | None = None,
    format: str | None = None,  # noqa: A002 - the name in quantization_config
    modules_to_not_convert: Iterable[str] = (),
    n_grid: int | None = None,
    duo_scaling: bool | None = None,
    apply_clip: bool | None = None,
    max_shrink: float | None = None,
    gptq_solver: bool | None = None,
) -> v1.MethodConfig:
    """AWQ: scales input channels by their activations before rounding.

    Args:
        bits: Only 4.
        group_size: Weights per scale; -1 means one scale a row. Default 128.
        zero_point: Asymmetric grid. Default True.
        format: "gemm", the only one that is written.
        modules_to_not_convert: Modules to leave as they are, besides the output head.
        n_grid: Points of the scale search. Default 20.
        duo_scaling: Whether scales depend on the weights too. Default: what is better.
        apply_clip: Whether ranges are clipped where that helps. Default True.
        max_shrink: Largest fraction that clipping may cut off. Default 0.5.
        gptq_solver: Whether scaled weights are rounded by GPTQ's solver. Default False.

    Returns:
        The configuration.

    Raises:
        ValueError: A value does not fit its field.
    """
    return method_config("awq", **locals())


def aqlm(
    num_codebooks: int | None = None,
    nbits_per_codebook: int | None = None,
    *,
    in_group_size: int | None = None,
    out_group_size: int | None = None,
    linear_weights_not_to_quantize: Iterable[str] = (),
    relative_mse_tolerance: float | None = None,
    max_epochs: int | None = None,
    steps_per_epoch: int | None = None,
    lr: float | None = None,
    beam_size: int | None = None,
    init_max_iter: int | None = None,
    init_max_points_per_centroid: int | None = None,
    finetune_max_epochs: int | None = None,
    finetune_lr: float | None = None,
    finetune_batch_size: int | None = None,
    finetune_early_stop: int | None = None,
) -> v1.MethodConfig:
    """AQLM: every group of weights is a sum of codebook vectors.

    Args:
        num_codebooks: Codebooks whose vectors are added. Default 1.
        nbits_per_codebook: Bits of an index into one codebook. Default 16.
        in_group_size: Weights of a group along the input dimension. Default 8.
        out_group_size: Weights of a group along the output dimension. Default 1.
        linear_weights_not_to_quantize: Parameters to leave as they are, by full name.
        relative_mse_tolerance: A layer is done when an epoch gains less than this. Default 0.01.
        max_epochs: Most epochs a layer may take. Default 1000.
        steps_per_epoch: Most optimizer steps in an epoch. Default 100.
        lr: Learning rate of those steps, for servers whose steps have one. Default 1e-4.
        beam_size: Hypotheses kept by the code search. Default 1.
        init_max_iter: Iterations of the k-means initialisation. Default 100.
        init_max_points_per_centroid: Most groups a codeword looks at; 0 means all. Default 0.
        finetune_max_epochs: Epochs of tuning a block; 0 turns it off. Default 4.
        finetune_lr: Learning rate of that tuning. Default 3e-4.
        finetune_batch_size: Sequences in a batch of that tuning. Default 2.
        finetune_early_stop: Epochs without improvement after which it stops. Default 3.

    Returns:
        The configuration.

    Raises:
        ValueError: A value does not fit its field.
    """
    return method_config("aqlm", **locals())


def method_config(method: str, **fields: Any) -> v1.MethodConfig:
    """The configuration of a method known by name only; the builders above are all made of this.

    Args:
        method: Field of `MethodConfig`, such as "bitsandbytes_4bit"; hyphens are fine too.
        **fields: Fields of its message. None leaves one out; enumerations are given by name.

    Returns:
        The configuration.

    Raises:
        ValueError: The method is not known, or a value does not fit its field.
        TypeError: The method has no such field, or a value has the wrong type.
    """
    name = method.replace("-", "_").lower()
    if name not in METHODS:
        raise ValueError(f"method: {method!r} is not one of {', '.join(METHODS)}")
    config = v1.MethodConfig()
    message = getattr(config, name)
    message.SetInParent()
    fill(message, fields)
    return config
