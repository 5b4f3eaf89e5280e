"""Llama and Mistral: GGUF architecture ``llama``."""

from __future__ import annotations

from quantd_server.methods.gguf.architectures.family import (
    Dimensions,
    Extras,
    Family,
    Shapes,
    attention_biases,
    gated_feed_forward,
    require_silu,
    separate_attention,
    warn_if_window_ignored,
)
from quantd_server.methods.gguf.config_reader import ConfigReader
from quantd_server.methods.gguf.description import Transform, uint32
from quantd_server.methods.gguf.rope import (
    RopeParameters,
    generated,
    llama3_factors,
    plain_metadata,
)


def _required(dims: Dimensions) -> Shapes:
    return separate_attention(dims) | gated_feed_forward(dims)


def _optional(dims: Dimensions) -> Shapes:
    return attention_biases(dims) | {
        "attn_output.bias": (dims.hidden,),
        "ffn_gate.bias": (dims.feed_forward,),
        "ffn_up.bias": (dims.feed_forward,),
        "ffn_down.bias": (dims.hidden,),
    }


def _extras(reader: ConfigReader, dims: Dimensions, rope: RopeParameters) -> Extras:
    require_silu(reader)
    warn_if_window_ignored(reader, dims)
    metadata = plain_metadata("llama", rope, reader)
    metadata.append(uint32("llama.rope.dimension_count", dims.head_dim))
    tensors = []
    if rope.kind == "llama3":
        tensors.append(generated("rope_freqs.weight", llama3_factors(rope, dims.head_dim)))
    return Extras(metadata=metadata, tensors=tensors)


def _transform(name: str, dims: Dimensions) -> tuple[Transform, int | None]:
    """llama.cpp rotates neighbouring elements in this architecture, transformers the halves."""
    if ".attn_q." in name:
        return "permute_heads", dims.heads
    if ".attn_k." in name:
        return "permute_heads", dims.kv_heads
    return "copy", None


LLAMA = Family(
    gguf_arch="llama",
    required=_required,
    optional=_optional,
    extras=_extras,
    transform=_transform,
)

MISTRAL = Family(
    gguf_arch="llama",
    required=_required,
    optional=_optional,
    extras=_extras,
    transform=_transform,
    defaults={"num_key_value_heads": 8},
)
