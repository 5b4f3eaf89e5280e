"""Qwen2 and Qwen3 (dense): GGUF architectures ``qwen2`` and ``qwen3``."""

from __future__ import annotations

from collections.abc import Callable

from quantd_server.methods.gguf.architectures.family import (
    Dimensions,
    Extras,
    Family,
    Shapes,
    attention_biases,
    copy_all,
    gated_feed_forward,
    require_silu,
    require_square_attention,
    separate_attention,
    warn_if_window_ignored,
)
from quantd_server.methods.gguf.config_reader import ConfigReader
from quantd_server.methods.gguf.rope import RopeParameters, plain_metadata


def _qwen2_required(dims: Dimensions) -> Shapes:
    return separate_attention(dims) | gated_feed_forward(dims)


def _qwen3_required(dims: Dimensions) -> Shapes:
    return _qwen2_required(dims) | {
        "attn_q_norm.weight": (dims.head_dim,),
        "attn_k_norm.weight": (dims.head_dim,),
    }


def _extras(arch: str) -> Callable[[ConfigReader, Dimensions, RopeParameters], Extras]:
    def extras(reader: ConfigReader, dims: Dimensions, rope: RopeParameters) -> Extras:
        require_silu(reader)
        if arch == "qwen2":
            require_square_attention(reader, dims)
        in_use = reader.flag("use_sliding_window", default=False)
        warn_if_window_ignored(reader, dims, in_use=in_use)
        if rope.kind == "llama3":
            reader.unsupported(
                f"llama3 rope scaling is not part of llama.cpp's {arch} architecture",
                "choose another method",
            )
        return Extras(metadata=plain_metadata(arch, rope, reader))

    return extras


QWEN2 = Family(
    gguf_arch="qwen2",
    required=_qwen2_required,
    optional=attention_biases,
    extras=_extras("qwen2"),
    transform=copy_all,
)

QWEN3 = Family(
    gguf_arch="qwen3",
    required=_qwen3_required,
    optional=attention_biases,
    extras=_extras("qwen3"),
    transform=copy_all,
    defaults={"head_dim": 128},
)
