"""Checkpoints that are as they should be, or nearly."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tests import header_checkpoints, sparse_checkpoint, tiny_models
from tests.checkpoint.builders import gguf_bytes, pair, tensor, text
from tests.conformance.fixture_kinds import Maker

Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


def tiny(folder: Path) -> None:
    """Two blocks of width 64 of a Llama in bfloat16, with tied embeddings: 20 tensors."""
    tiny_models.write(folder)


def headers(**sizes: Any) -> Maker:
    """A Llama of which only the headers exist."""

    def make(folder: Path) -> None:
        config = tiny_models.config(**sizes)
        header_checkpoints.write(folder, config, tiny_models.shapes(config))

    return make


def untied(folder: Path) -> None:
    """A Llama of width 128 with an output head of 320 rows, of which only the headers exist."""
    config = tiny_models.config(hidden=128, intermediate=256, tied=False) | {"vocab_size": 320}
    rows = {"lm_head.weight": (320, 128), "model.embed_tokens.weight": (320, 128)}
    header_checkpoints.write(folder, config, tiny_models.shapes(config) | rows)


def mixture(*, fused: bool = False) -> Maker:
    """A Qwen3-MoE of two blocks, of which only the headers exist."""
    return lambda folder: header_checkpoints.write(folder, *header_checkpoints.mixture(fused=fused))


def with_config(**changes: Any) -> Maker:
    """The tiny checkpoint with other members in its config.json; None removes one."""
    return changed(lambda folder: edit_json(folder / "config.json", **changes))


def changed(change: Callable[[Path], object], **options: Any) -> Maker:
    """A tiny checkpoint that is changed afterwards."""

    def make(folder: Path) -> None:
        tiny_models.write(folder, **options)
        change(folder)

    return make


def edit_json(path: Path, **changes: Any) -> None:
    """Replaces members of a JSON object; None removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: each for key, each in content.items() if each is not None}))


def with_weights(scale: float = 1.0, **values: float) -> Maker:
    """The tiny checkpoint in float32 whose first q_proj is scaled, with values by place."""

    def make(folder: Path) -> None:
        weights = tiny_models.weights(tiny_models.config())[Q_PROJ] * np.float32(scale)
        for place, value in values.items():
            weights.flat[int(place.removeprefix("at_"))] = value
        tiny_models.write(folder, dtype="F32", changes={Q_PROJ: weights})

    return make


def endless_norm(folder: Path) -> None:
    """The tiny checkpoint with an infinity in its last norm."""
    values = tiny_models.weights(tiny_models.config())["model.norm.weight"]
    values[0] = np.inf
    tiny_models.write(folder, changes={"model.norm.weight": values})


def huge_inputs(folder: Path) -> None:
    """The tiny checkpoint with a layer whose outputs have squares beyond all range."""
    name = "model.layers.0.mlp.up_proj.weight"
    values = tiny_models.weights(tiny_models.config())[name] * np.float32(1e19)
    tiny_models.write(folder, dtype="F32", changes={name: values})


def with_tensors(**raw: tiny_models.StoredTensor) -> Maker:
    """The tiny checkpoint with more tensors, or other ones; names with "/" for "."."""
    named = {name.replace("__", "."): stored for name, stored in raw.items()}
    return lambda folder: tiny_models.write(folder, raw=named)


def gguf_source(architecture: str) -> Maker:
    """A .gguf file of one tensor in float16."""
    content = gguf_bytes(
        [pair("general.architecture", "string", text(architecture))],
        [tensor("blk.0.attn_q.weight", (32, 2), 1)],
        bytes(128),
    )
    return lambda path: path.write_bytes(content)


def endless(folder: Path) -> None:
    """Headers of a mixture of experts of 33 GB, whose cache grows fast."""
    sparse_checkpoint.write(folder, blocks=8)


def large(folder: Path) -> None:
    """Headers of a weight of eight terabytes, which no disk here holds quantized."""
    config = tiny_models.config()
    shapes = tiny_models.shapes(config) | {Q_PROJ: (1 << 21, 1 << 20)}
    header_checkpoints.write(folder, config, shapes)


FIXTURES: Mapping[str, Maker] = {
    "tiny": tiny,
    "slow": tiny_models.write_slow,
    "brittle": tiny_models.write_slow,
    "sharded": lambda folder: tiny_models.write(folder, shards=2),
    "wide": headers(hidden=256, intermediate=512),
    "odd": headers(hidden=60, heads=2, kv_heads=1),
    "crossing": headers(intermediate=160),
    "gpt2": lambda folder: tiny_models.write(folder, "gpt2"),
    "untied": untied,
    "mixture": mixture(),
    "endless": endless,
    "large": large,
    "long-context": with_config(max_position_embeddings=4096),
    "unknown-architecture": with_config(model_type="never_heard_of"),
    "blocks-missing": with_config(num_hidden_layers=3),
    "head-missing": with_config(tie_word_embeddings=False),
    "quantized-gptq": with_config(
        quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 128}
    ),
    "quantized-hqq": with_config(quantization_config={"quant_method": "hqq"}),
    "not-a-number": with_weights(at_66=float("nan")),
    "beyond-float16": with_weights(at_7=1e6),
    "huge-weights": with_weights(at_199=1e6, at_330=1e18),
    "endless-norm": endless_norm,
    "huge-inputs": huge_inputs,
    "name-taken": with_tensors(
        model__layers__0__self_attn__q_proj__SCB=("F32", (64,), bytes(256)),
        model__layers__0__self_attn__q_proj__scales=("F16", (2, 64), bytes(256)),
    ),
    "int-weight": with_tensors(
        model__layers__0__self_attn__q_proj__weight=("I32", (64, 64), bytes(4 * 64 * 64))
    ),
    "int-norm": with_tensors(model__norm__weight=("I32", (64,), bytes(256))),
    "never-heard-of.gguf": gguf_source("never_heard_of"),
    "plain.gguf": gguf_source("llama"),
}
