"""A checkpoint of 5,000 tensors whose headers describe 140 GB: sparse files that take no disk."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

BLOCKS, EXPERTS = 34, 46
HIDDEN, INNER, VOCABULARY = 4096, 3584, 32000
HEADS, KEY_VALUE_HEADS, HEAD_SIZE = 32, 8, 128
SHARD_BYTES = 5_000_000_000
TENSORS = 5_000

CONFIG = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "dtype": "bfloat16",
    "head_dim": HEAD_SIZE,
    "hidden_size": HIDDEN,
    "max_position_embeddings": 40960,
    "moe_intermediate_size": INNER,
    "num_attention_heads": HEADS,
    "num_experts": EXPERTS,
    "num_hidden_layers": BLOCKS,
    "num_key_value_heads": KEY_VALUE_HEADS,
    "tie_word_embeddings": True,
    "vocab_size": VOCABULARY,
}

Shapes = dict[str, tuple[int, ...]]


def write(directory: Path, *, blocks: int = BLOCKS) -> int:
    """Writes config, index and shards of bfloat16 tensors; returns the bytes of the tensors."""
    directory.mkdir()
    shards = _shards(_shapes(blocks))
    weight_map = {}
    for number, tensors in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        weight_map.update(dict.fromkeys(tensors, name))
        _write_shard(directory / name, tensors)
    total = sum(_nbytes(shape) for tensors in shards for shape in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    (directory / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": blocks}))
    return total


def _shapes(blocks: int) -> Shapes:
    queries, keys = HEADS * HEAD_SIZE, KEY_VALUE_HEADS * HEAD_SIZE
    block: Shapes = {
        "input_layernorm.weight": (HIDDEN,),
        "mlp.gate.weight": (EXPERTS, HIDDEN),
        "post_attention_layernorm.weight": (HIDDEN,),
        "self_attn.k_norm.weight": (HEAD_SIZE,),
        "self_attn.k_proj.weight": (keys, HIDDEN),
        "self_attn.o_proj.weight": (HIDDEN, queries),
        "self_attn.q_norm.weight": (HEAD_SIZE,),
        "self_attn.q_proj.weight": (queries, HIDDEN),
        "self_attn.v_proj.weight": (keys, HIDDEN),
    }
    for expert in range(EXPERTS):
        block[f"mlp.experts.{expert}.gate_proj.weight"] = (INNER, HIDDEN)
        block[f"mlp.experts.{expert}.up_proj.weight"] = (INNER, HIDDEN)
        block[f"mlp.experts.{expert}.down_proj.weight"] = (HIDDEN, INNER)
    shapes: Shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for number in range(blocks):
        shapes |= {f"model.layers.{number}.{name}": shape for name, shape in block.items()}
    shapes["model.norm.weight"] = (HIDDEN,)
    return shapes


def _shards(shapes: Shapes) -> list[Shapes]:
    shards: list[Shapes] = [{}]
    used = 0
    for name, shape in shapes.items():
        if used + _nbytes(shape) > SHARD_BYTES:
            shards.append({})
            used = 0
        shards[-1][name] = shape
        used += _nbytes(shape)
    return shards


def _write_shard(path: Path, tensors: Shapes) -> None:
    header = {}
    end = 0
    for name, shape in tensors.items():
        begin, end = end, end + _nbytes(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def _nbytes(shape: tuple[int, ...]) -> int:
    return 2 * math.prod(shape)
