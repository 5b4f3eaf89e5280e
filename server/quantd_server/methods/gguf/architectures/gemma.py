"""Gemma 2 and Gemma 3 (text): GGUF architectures ``gemma2`` and ``gemma3``.

Sliding and full attention alternate; llama.cpp assumes every second (Gemma 2) or every sixth
(Gemma 3) block to be a full one unless the file says otherwise.
"""

from __future__ import annotations

import math

from quantd_server.methods.gguf.architectures.family import (
    Dimensions,
    Extras,
    Family,
    Shapes,
    attention_biases,
    gated_feed_forward,
    require_activation,
    separate_attention,
)
from quantd_server.methods.gguf.config_reader import ConfigReader
from quantd_server.methods.gguf.description import MetadataEntry, Transform, array, float32, uint32
from quantd_server.methods.gguf.rope import RopeParameters, plain_metadata

GELU_TANH = ("gelu_pytorch_tanh", "gelu_new", "gelu_fast")


def _gemma2_required(dims: Dimensions) -> Shapes:
    return (
        separate_attention(dims)
        | gated_feed_forward(dims)
        | {"post_attention_norm.weight": (dims.hidden,), "post_ffw_norm.weight": (dims.hidden,)}
    )


def _gemma3_required(dims: Dimensions) -> Shapes:
    return _gemma2_required(dims) | {
        "attn_q_norm.weight": (dims.head_dim,),
        "attn_k_norm.weight": (dims.head_dim,),
    }


def _transform(name: str, _dims: Dimensions) -> tuple[Transform, int | None]:
    return ("add_one" if name.endswith("_norm.weight") else "copy"), None


def _sliding_pattern(
    arch: str, period: int, reader: ConfigReader, dims: Dimensions
) -> list[MetadataEntry]:
    """Nothing if the blocks follow llama.cpp's default period, else one boolean a block"""
    layer_types = reader.config.get("layer_types")
    if layer_types is None:
        own_period = reader.integer("sliding_window_pattern", period)
        sliding = [(block + 1) % own_period != 0 for block in range(dims.blocks)]
    elif isinstance(layer_types, list) and len(layer_types) == dims.blocks:
        sliding = [kind == "sliding_attention" for kind in layer_types]
    else:
        reader.unsupported(
            f"layer_types in config.json is not a list with one entry for each of "
            f"{dims.blocks} blocks",
            "use the config.json that was published with the model",
        )
        return []
    if sliding == [(block + 1) % period != 0 for block in range(dims.blocks)]:
        return []
    return [array(f"{arch}.attention.sliding_window_pattern", "bool", sliding)]


def _check_attention_scale(reader: ConfigReader, dims: Dimensions, blocks_of_27b: int) -> None:
    """llama.cpp has the scale built in: by head size, in the 27B models by hidden size."""
    expected = dims.head_dim
    if dims.blocks == blocks_of_27b:
        expected = dims.hidden // dims.heads
    scalar = reader.number("query_pre_attn_scalar", 256.0)
    if not math.isclose(scalar, expected):
        reader.unsupported(
            f"query_pre_attn_scalar is {scalar:g}; llama.cpp computes attention with {expected}",
            "choose another method",
        )


def _gemma2_extras(reader: ConfigReader, dims: Dimensions, rope: RopeParameters) -> Extras:
    require_activation(reader, "hidden_activation", GELU_TANH)
    _check_attention_scale(reader, dims, blocks_of_27b=46)
    metadata = [
        *_rope_metadata("gemma2", rope, reader),
        uint32("gemma2.attention.sliding_window", reader.integer("sliding_window", 4096)),
        *_sliding_pattern("gemma2", 2, reader, dims),
    ]
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if key in reader.config and reader.config[key] is None:
            reader.unsupported(
                f"{key} is null; llama.cpp always caps logits in the gemma2 architecture",
                "choose another method",
            )
        default = 50.0 if key.startswith("attn") else 30.0
        metadata.append(float32(f"gemma2.{key}", reader.number(key, default)))
    return Extras(metadata=metadata)


def _gemma3_extras(reader: ConfigReader, dims: Dimensions, rope: RopeParameters) -> Extras:
    require_activation(reader, "hidden_activation", GELU_TANH)
    _check_attention_scale(reader, dims, blocks_of_27b=62)
    if reader.config.get("attn_logit_softcapping") is not None:
        reader.unsupported(
            "attn_logit_softcapping is set; llama.cpp's gemma3 architecture has none",
            "choose another method",
        )
    metadata = [
        *_rope_metadata("gemma3", rope, reader),
        float32("gemma3.rope.freq_base_swa", rope.local_theta),
        uint32("gemma3.attention.sliding_window", reader.integer("sliding_window", 4096)),
        *_sliding_pattern("gemma3", 6, reader, dims),
    ]
    if reader.config.get("final_logit_softcapping") is not None:
        cap = reader.number("final_logit_softcapping")
        metadata.append(float32("gemma3.final_logit_softcapping", cap))
    return Extras(metadata=metadata)


def _rope_metadata(arch: str, rope: RopeParameters, reader: ConfigReader) -> list[MetadataEntry]:
    if rope.kind == "llama3":
        reader.unsupported(
            f"llama3 rope scaling is not part of llama.cpp's {arch} architecture",
            "choose another method",
        )
    return plain_metadata(arch, rope, reader)


GEMMA2 = Family(
    gguf_arch="gemma2",
    required=_gemma2_required,
    optional=attention_biases,
    extras=_gemma2_extras,
    transform=_transform,
    separate_output=False,
    defaults={"head_dim": 256, "max_position_embeddings": 8192, "tie_word_embeddings": True},
)

GEMMA3 = Family(
    gguf_arch="gemma3",
    required=_gemma3_required,
    optional=attention_biases,
    extras=_gemma3_extras,
    transform=_transform,
    defaults={
        "vocab_size": 262208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
        "rope_theta": 1_000_000.0,
    },
)
