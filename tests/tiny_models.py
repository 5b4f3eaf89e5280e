"""Tiny random checkpoints, written byte by byte: made in milliseconds, without torch.

The values are rounded to the stored type by rules of their own, so that they are independent of
the kernels under test.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.checkpoint.builders import safetensors_bytes

Weights = dict[str, NDArray[np.float32]]

StoredTensor = tuple[str, tuple[int, ...], bytes]
"""Type, shape and bytes."""

VOCABULARY = 272
"""Rows of the embedding: the tokens of ``write_tokenizer`` and some more."""

_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def config(family: str = "llama", *, dtype: str = "BF16", tied: bool = True, **sizes: int) -> dict:
    """``config.json``. ``sizes``: hidden, intermediate, layers, heads, kv_heads."""
    size = {"hidden": 64, "intermediate": 160, "layers": 2, "heads": 4, "kv_heads": 2} | sizes
    common = {
        "model_type": family,
        "dtype": _NAMES[dtype],
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": tied,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    if family == "gpt2":
        return common | {
            "architectures": ["GPT2LMHeadModel"],
            "n_embd": size["hidden"],
            "n_layer": size["layers"],
            "n_head": size["heads"],
            "n_positions": 128,
        }
    architecture = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}[family]
    return common | {
        "architectures": [architecture],
        "hidden_size": size["hidden"],
        "intermediate_size": size["intermediate"],
        "num_hidden_layers": size["layers"],
        "num_attention_heads": size["heads"],
        "num_key_value_heads": size["kv_heads"],
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
    }


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors that transformers saves for a configuration."""
    if config["model_type"] == "gpt2":
        return _gpt2_shapes(config)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, hidden)}
    for layer in range(config["num_hidden_layers"]):
        block = f"model.layers.{layer}"
        found[f"{block}.input_layernorm.weight"] = (hidden,)
        for name, rows in (("q", hidden), ("k", kv), ("v", kv)):
            found[f"{block}.self_attn.{name}_proj.weight"] = (rows, hidden)
            if config["model_type"] == "qwen2":
                found[f"{block}.self_attn.{name}_proj.bias"] = (rows,)
        found[f"{block}.self_attn.o_proj.weight"] = (hidden, hidden)
        found[f"{block}.post_attention_layernorm.weight"] = (hidden,)
        found[f"{block}.mlp.gate_proj.weight"] = (inner, hidden)
        found[f"{block}.mlp.up_proj.weight"] = (inner, hidden)
        found[f"{block}.mlp.down_proj.weight"] = (hidden, inner)
    found["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = (VOCABULARY, hidden)
    return found


def _gpt2_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden = config["n_embd"]
    found: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (VOCABULARY, hidden),
        "transformer.wpe.weight": (config["n_positions"], hidden),
    }
    # A Conv1D stores its weight as [in, out].
    layers = {"attn.c_attn": (1, 3), "attn.c_proj": (1, 1), "mlp.c_fc": (1, 4), "mlp.c_proj": (4, 1)}
    norms = ["ln_f"]
    for layer in range(config["n_layer"]):
        norms += [f"h.{layer}.ln_1", f"h.{layer}.ln_2"]
        for name, (into, out) in layers.items():
            found[f"transformer.h.{layer}.{name}.weight"] = (into * hidden, out * hidden)
            found[f"transformer.h.{layer}.{name}.bias"] = (out * hidden,)
    for norm in norms:
        found[f"transformer.{norm}.weight"] = found[f"transformer.{norm}.bias"] = (hidden,)
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = (VOCABULARY, hidden)
    return found


def weights(config: Mapping[str, Any], *, seed: int = 0) -> Weights:
    """Random values: matrices as after training, norms around 1."""
    rng = np.random.default_rng(seed)
    values = {}
    for name, shape in shapes(config).items():
        is_norm = name.endswith(("norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight"))
        drawn = rng.standard_normal(shape, np.float32)
        values[name] = 1 + drawn / 10 if is_norm else drawn / 20
    return values


def encode(values: NDArray[np.float32], dtype: str) -> bytes:
    """Bytes of the values in F32, F16 or BF16, rounded to nearest even."""
    if dtype == "F32":
        return values.astype(np.float32).tobytes()
    if dtype == "F16":
        return values.astype(np.float16).tobytes()
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits.astype(np.uint64) + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded).tobytes()


def write_safetensors(path: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """One file with all of ``tensors``."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, (dtype, shape, data) in tensors.items():
        end = begin + len(data)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    pieces = (data for _, _, data in tensors.values())
    path.write_bytes(safetensors_bytes(header, b"".join(pieces)))


def write(
    folder: Path,
    family: str = "llama",
    *,
    dtype: str = "BF16",
    tied: bool = True,
    shards: int = 1,
    seed: int = 0,
    changes: Mapping[str, NDArray[np.float32]] | None = None,
    raw: Mapping[str, StoredTensor] | None = None,
    **sizes: int,
) -> Path:
    """A checkpoint with a tokenizer, of one file or of several.

    ``changes`` replaces or adds tensors in ``dtype``, ``raw`` tensors of any type.
    """
    folder.mkdir(parents=True)
    model_config = config(family, dtype=dtype, tied=tied, **sizes)
    values = weights(model_config, seed=seed) | dict(changes or {})
    tensors: dict[str, StoredTensor] = {
        name: (dtype, value.shape, encode(value, dtype)) for name, value in values.items()
    }
    tensors |= raw or {}
    (folder / "config.json").write_text(json.dumps(model_config, indent=2))
    write_tokenizer(folder)
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors)
        return folder
    weight_map: dict[str, str] = {}
    names = list(tensors)
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[number::shards]}
        write_safetensors(folder / file, part)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE of GPT-2's kind: one token a byte, one merge, one special token."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(others))]
    vocabulary = {letter: place for place, letter in enumerate(["<|endoftext|>", *letters, "th"])}
    special = {
        "id": 0,
        "content": "<|endoftext|>",
        "special": True,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
    }
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [special],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [["t", "h"]],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<|endoftext|>",
                "eos_token": "<|endoftext|>",
            }
        )
    )
