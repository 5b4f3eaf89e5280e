"""Phi-3 and the models built on it: GGUF architecture ``phi3``. Query, key and value are one
fused matrix, gate and up another; llama.cpp splits them while it computes.
"""

from __future__ import annotations

from quantd_server.methods.gguf.architectures.family import (
    Dimensions,
    Extras,
    Family,
    Shapes,
    copy_all,
    require_silu,
    require_square_attention,
    warn_if_window_ignored,
)
from quantd_server.methods.gguf.config_reader import ConfigReader
from quantd_server.methods.gguf.description import float32, uint32
from quantd_server.methods.gguf.rope import RopeParameters, longrope

LONGROPE_NAMES = frozenset({"longrope", "su"})


def _required(dims: Dimensions) -> Shapes:
    return {
        "attn_norm.weight": (dims.hidden,),
        "attn_qkv.weight": (dims.query_rows + 2 * dims.kv_rows, dims.hidden),
        "attn_output.weight": (dims.hidden, dims.query_rows),
        "ffn_norm.weight": (dims.hidden,),
        "ffn_up.weight": (2 * dims.feed_forward, dims.hidden),
        "ffn_down.weight": (dims.hidden, dims.feed_forward),
    }


def _optional(dims: Dimensions) -> Shapes:
    return {"attn_qkv.bias": (dims.query_rows + 2 * dims.kv_rows,)}


def _extras(reader: ConfigReader, dims: Dimensions, rope: RopeParameters) -> Extras:
    require_silu(reader)
    require_square_attention(reader, dims)
    warn_if_window_ignored(reader, dims)
    rotated = int(rope.partial_factor * dims.head_dim)
    window = reader.config.get("sliding_window")
    metadata = [
        uint32("phi3.rope.dimension_count", rotated),
        # llama.cpp tells Phi-4 from Phi-3 by a window of zero.
        uint32("phi3.attention.sliding_window", window if type(window) is int else 0),
    ]
    if rope.kind in LONGROPE_NAMES:
        metadata.append(float32("phi3.rope.freq_base", rope.theta))
        entries, tensors = longrope("phi3", rope, rotated, reader)
        return Extras(metadata=metadata + entries, tensors=tensors)
    if rope.kind != "default":
        reader.unsupported(
            f"the rope type {rope.kind!r} cannot be converted for the phi3 architecture; "
            f"known: default, longrope, su",
            "choose another method",
        )
    metadata.append(float32("phi3.rope.freq_base", rope.theta))
    original = reader.integer("original_max_position_embeddings", dims.context)
    metadata.append(uint32("phi3.rope.scaling.original_context_length", original))
    return Extras(metadata=metadata)


PHI3 = Family(
    gguf_arch="phi3",
    required=_required,
    optional=_optional,
    extras=_extras,
    transform=copy_all,
)
