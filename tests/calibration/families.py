"""Tiny random models of the families, made by transformers, and their checkpoints on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

VOCABULARY = 128
LENGTH = 48

COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": COMMON,
    "mistral": COMMON | {"sliding_window": 8},
    "qwen2": COMMON,
    "qwen3": COMMON,
    "gemma2": COMMON | {"sliding_window": 8, "query_pre_attn_scalar": 8},
    "gemma3_text": COMMON | {"sliding_window": 8, "query_pre_attn_scalar": 8},
    "phi3": COMMON,
    "qwen3_moe": COMMON | EXPERTS,
    "qwen2_moe": COMMON | EXPERTS | {"shared_expert_intermediate_size": 40},
    "mixtral": COMMON | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "opt": {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "word_embed_proj_dim": 16,
        "ffn_dim": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    },
    "gpt2": {
        "vocab_size": VOCABULARY,
        "n_embd": 32,
        "n_layer": 3,
        "n_head": 4,
        "n_positions": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "apertus": COMMON,  # Its activation function has buffers.
    "gpt_neox": COMMON,
    "phi": COMMON,  # Attention and MLP beside each other; the head has a bias.
}

CONFIGS = FAMILIES | {
    "gemma4_text": COMMON
    | {
        "num_hidden_layers": 4,
        "global_head_dim": 8,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "hidden_size_per_layer_input": 0,
        "num_kv_shared_layers": 0,
        "vocab_size_per_layer_input": VOCABULARY,
    },
}
"""And one whose blocks hand on more than states, so that it cannot be walked."""


def make(family: str, folder: Path, *, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A model in float32, its checkpoint written to ``folder``."""
    torch.manual_seed(seed)
    config = CONFIG_MAPPING[family](**(CONFIGS[family] | changes))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Norms and biases too: what is left out must show.
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.requires_grad_(False).save_pretrained(folder)
    return model


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def sequences(count: int = 5, length: int = LENGTH, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, VOCABULARY, (length,), generator=generator) for _ in range(count)]
