"""A synthetic Llama of 1.07 billion parameters, large enough that memory and time mean something.

Its shapes are those of a real 1B model, its tokenizer is SmolLM2's, its weights are normal with a
scale that differs from row to row as it does in trained models. It is written tensor by tensor, so
that making it takes little memory.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

HIDDEN, INNER, BLOCKS, VOCABULARY = 2048, 8192, 16, 49152
HEADS, KEY_VALUE_HEADS, HEAD_SIZE = 32, 8, 64
SHARDS = 4
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "attention_bias": False,
    "bos_token_id": 1,
    "dtype": "bfloat16",
    "eos_token_id": 2,
    "head_dim": HEAD_SIZE,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "initializer_range": 0.02,
    "intermediate_size": INNER,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "num_attention_heads": HEADS,
    "num_hidden_layers": BLOCKS,
    "num_key_value_heads": KEY_VALUE_HEADS,
    "rms_norm_eps": 1e-05,
    "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
    "tie_word_embeddings": True,
    "vocab_size": VOCABULARY,
}
CARRIED = (
    "chat_template.jinja",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
WEIGHT_SCALE = 0.02
ROW_SCALE_SPREAD = 0.3
"""Standard deviation of the logarithm of a row's scale."""
ROWS_AT_A_TIME = 1024

Shape = tuple[int, ...]


def ensure(directory: Path, tokenizer_from: Path) -> None:
    """Makes the checkpoint unless it is there; it appears complete or not at all.

    Args:
        directory: Where it goes.
        tokenizer_from: A checkpoint of SmolLM2, whose vocabulary the shapes are made for.
    """
    if directory.exists():
        return
    print(f"making the synthetic model of 1.07 B parameters in {directory} (2.1 GB)", flush=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as folder:
        checkpoint = Path(folder, "checkpoint")
        checkpoint.mkdir()
        write(checkpoint)
        for name in CARRIED:
            shutil.copyfile(tokenizer_from / name, checkpoint / name)
        checkpoint.rename(directory)


def write(directory: Path) -> None:
    """Writes config, index and shards."""
    shards = shard_tensors()
    generator = np.random.default_rng(0)
    weight_map = {}
    for number, tensors in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        weight_map.update(dict.fromkeys(tensors, name))
        write_shard(directory / name, tensors, generator)
    total = sum(2 * math.prod(shape) for tensors in shards for shape in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    (directory / "config.json").write_text(json.dumps(CONFIG, indent=2))


def shard_tensors() -> list[dict[str, Shape]]:
    """Shape by name, for each shard; as many decoder blocks in each."""
    key_value = KEY_VALUE_HEADS * HEAD_SIZE
    block = {
        "input_layernorm.weight": (HIDDEN,),
        "mlp.down_proj.weight": (HIDDEN, INNER),
        "mlp.gate_proj.weight": (INNER, HIDDEN),
        "mlp.up_proj.weight": (INNER, HIDDEN),
        "post_attention_layernorm.weight": (HIDDEN,),
        "self_attn.k_proj.weight": (key_value, HIDDEN),
        "self_attn.o_proj.weight": (HIDDEN, HIDDEN),
        "self_attn.q_proj.weight": (HIDDEN, HIDDEN),
        "self_attn.v_proj.weight": (key_value, HIDDEN),
    }
    shards: list[dict[str, Shape]] = [{} for _ in range(SHARDS)]
    shards[0]["model.embed_tokens.weight"] = (VOCABULARY, HIDDEN)
    for number in range(BLOCKS):
        for name, shape in block.items():
            shards[number * SHARDS // BLOCKS][f"model.layers.{number}.{name}"] = shape
    shards[-1]["model.norm.weight"] = (HIDDEN,)
    return shards


def write_shard(path: Path, tensors: dict[str, Shape], generator: np.random.Generator) -> None:
    """Writes one safetensors file of bfloat16 tensors."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in tensors.values():
            for values in weights(shape, generator):
                file.write(bfloat16(values).tobytes())


def weights(shape: Shape, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Pieces of a tensor, float32: a norm lies around one, a matrix around zero."""
    if len(shape) == 1:
        yield 1 + 0.1 * generator.standard_normal(shape, np.float32)
        return
    rows, columns = shape
    for first in range(0, rows, ROWS_AT_A_TIME):
        count = min(ROWS_AT_A_TIME, rows - first)
        spread = ROW_SCALE_SPREAD * generator.standard_normal((count, 1), np.float32)
        scale = np.float32(WEIGHT_SCALE) * np.exp(spread)
        yield scale * generator.standard_normal((count, columns), np.float32)


def bfloat16(values: np.ndarray) -> np.ndarray:
    """The upper halves of finite float32 values, rounded to nearest even: uint16."""
    bits = values.view(np.uint32)
    rounding = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return ((bits + rounding) >> np.uint32(16)).astype(np.uint16)
