"""What every decoder family shares: its dimensions, and the contract that a family fills in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from quantd_server.methods.gguf.config_reader import ConfigReader
from quantd_server.methods.gguf.description import (
    ConvertedTensor,
    MetadataEntry,
    Transform,
    float32,
    uint32,
)
from quantd_server.methods.gguf.rope import RopeParameters

MAX_BLOCKS = 512
"""``LLAMA_MAX_LAYERS`` of llama.cpp."""

Shapes = dict[str, tuple[int, ...]]
"""GGUF tensor name (without ``blk.<n>.`` for block tensors) to row-major shape."""


class Dimensions(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of a decoder-only transformer."""

    vocabulary: int
    context: int
    hidden: int
    feed_forward: int
    blocks: int
    heads: int
    kv_heads: int
    head_dim: int

    @property
    def query_rows(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_rows(self) -> int:
        return self.kv_heads * self.head_dim


class Extras(msgspec.Struct, frozen=True, kw_only=True):
    """What a family adds to the common keys, and the tensors that it generates."""

    metadata: list[MetadataEntry]
    tensors: list[ConvertedTensor] = []


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """How the checkpoints of one family become one GGUF architecture.

    ``required`` and ``optional`` are exactly the tensors that llama.cpp's loader of the
    architecture asks for (``load_arch_tensors``): it refuses a file with any other.
    """

    gguf_arch: str
    required: Callable[[Dimensions], Shapes]
    optional: Callable[[Dimensions], Shapes]
    extras: Callable[[ConfigReader, Dimensions, RopeParameters], Extras]
    transform: Callable[[str, Dimensions], tuple[Transform, int | None]]
    separate_output: bool = True
    """False if llama.cpp always reuses the token embedding as output layer."""
    defaults: Mapping[str, Any] = {}
    """Config values that the family's transformers config class fills in when absent."""


def copy_all(_name: str, _dims: Dimensions) -> tuple[Transform, int | None]:
    return "copy", None


def read_dimensions(reader: ConfigReader) -> Dimensions:
    hidden = reader.integer("hidden_size")
    heads = reader.integer("num_attention_heads")
    blocks = reader.integer("num_hidden_layers")
    if blocks > MAX_BLOCKS:
        reader.unsupported(
            f"num_hidden_layers is {blocks}; llama.cpp has a limit of {MAX_BLOCKS}",
            "check num_hidden_layers in config.json",
        )
        blocks = 1
    kv_heads = reader.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        reader.unsupported(
            f"num_attention_heads ({heads}) is not a multiple of num_key_value_heads ({kv_heads})",
            "check config.json",
        )
    return Dimensions(
        vocabulary=reader.integer("vocab_size"),
        context=reader.integer("max_position_embeddings", 2048),
        hidden=hidden,
        feed_forward=reader.integer("intermediate_size"),
        blocks=blocks,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=reader.integer("head_dim", max(1, hidden // heads)),
    )


def common_metadata(arch: str, dims: Dimensions, reader: ConfigReader) -> list[MetadataEntry]:
    return [
        uint32(f"{arch}.block_count", dims.blocks),
        uint32(f"{arch}.context_length", dims.context),
        uint32(f"{arch}.embedding_length", dims.hidden),
        uint32(f"{arch}.feed_forward_length", dims.feed_forward),
        uint32(f"{arch}.attention.head_count", dims.heads),
        uint32(f"{arch}.attention.head_count_kv", dims.kv_heads),
        uint32(f"{arch}.attention.key_length", dims.head_dim),
        uint32(f"{arch}.attention.value_length", dims.head_dim),
        float32(f"{arch}.attention.layer_norm_rms_epsilon", reader.number("rms_norm_eps", 1e-6)),
        uint32(f"{arch}.vocab_size", dims.vocabulary),
    ]


def separate_attention(dims: Dimensions) -> Shapes:
    return {
        "attn_norm.weight": (dims.hidden,),
        "attn_q.weight": (dims.query_rows, dims.hidden),
        "attn_k.weight": (dims.kv_rows, dims.hidden),
        "attn_v.weight": (dims.kv_rows, dims.hidden),
        "attn_output.weight": (dims.hidden, dims.query_rows),
    }


def attention_biases(dims: Dimensions) -> Shapes:
    return {
        "attn_q.bias": (dims.query_rows,),
        "attn_k.bias": (dims.kv_rows,),
        "attn_v.bias": (dims.kv_rows,),
    }


def gated_feed_forward(dims: Dimensions) -> Shapes:
    return {
        "ffn_norm.weight": (dims.hidden,),
        "ffn_gate.weight": (dims.feed_forward, dims.hidden),
        "ffn_up.weight": (dims.feed_forward, dims.hidden),
        "ffn_down.weight": (dims.hidden, dims.feed_forward),
    }


def require_silu(reader: ConfigReader) -> None:
    """llama.cpp has the activation of each architecture built in."""
    require_activation(reader, "hidden_act", ("silu", "swish"))


def require_activation(reader: ConfigReader, key: str, allowed: tuple[str, ...]) -> None:
    got = reader.config.get(key)
    if got is not None and got not in allowed:
        reader.unsupported(
            f"{key} is {got!r}; llama.cpp computes this architecture with {allowed[0]}",
            "choose another method",
        )


def warn_if_window_ignored(reader: ConfigReader, dims: Dimensions, *, in_use: bool = True) -> None:
    """llama.cpp attends to everything in architectures whose window it does not implement."""
    window = reader.config.get("sliding_window")
    if in_use and isinstance(window, int) and 0 < window < dims.context:
        reader.warn(
            "GGUF_SLIDING_WINDOW_IGNORED",
            f"the model attends to the last {window} tokens only; llama.cpp ignores this in its "
            f"architecture, so outputs differ beyond {window} tokens of context",
            f"run the GGUF file with a context of at most {window} tokens",
        )


def require_square_attention(reader: ConfigReader, dims: Dimensions) -> None:
    if dims.query_rows != dims.hidden:
        reader.unsupported(
            f"num_attention_heads x head_dim is {dims.query_rows} but hidden_size is "
            f"{dims.hidden}; llama.cpp needs them equal in this architecture",
            "choose another method",
        )
