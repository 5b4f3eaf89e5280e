"""A real checkpoint that quantizes in no time."""

from __future__ import annotations

import json
import struct
from math import prod
from pathlib import Path

HIDDEN, WIDTH, VOCABULARY = 64, 128, 96
VALUES = bytes.fromhex("803f 80bf 003f 00bf")  # 1, -1, 0.5, -0.5 as bfloat16


def write_tiny_llama(folder: Path, blocks: int = 2) -> Path:
    """A Llama in bfloat16 with a tied output head and no tokenizer; returns the folder."""
    shapes = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    for block in range(blocks):
        at = f"model.layers.{block}"
        shapes |= {f"{at}.self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"}
        shapes |= {f"{at}.mlp.{name}_proj.weight": (WIDTH, HIDDEN) for name in ("gate", "up")}
        shapes[f"{at}.mlp.down_proj.weight"] = (HIDDEN, WIDTH)
        shapes[f"{at}.input_layernorm.weight"] = (HIDDEN,)
        shapes[f"{at}.post_attention_layernorm.weight"] = (HIDDEN,)
    folder.mkdir()
    _write_safetensors(folder / "model.safetensors", shapes)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": WIDTH,
        "num_hidden_layers": blocks,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _write_safetensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    header, data = {}, b""
    for name, shape in shapes.items():
        values = VALUES * (prod(shape) // 4)
        header[name] = {
            "dtype": "BF16",
            "shape": list(shape),
            "data_offsets": [len(data), len(data) + len(values)],
        }
        data += values
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
