"""Checkpoints of which only the headers exist: sparse files for plans and inspections."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests import tiny_models

ITEM_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I32": 4, "U8": 1, "F8_E4M3": 1}


def write(
    folder: Path,
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    dtype: str = "BF16",
    dtypes: Mapping[str, str] | None = None,
) -> Path:
    """A checkpoint with a tokenizer, whose weights are all zero and take no disk.

    ``dtypes`` are those of tensors that are not in ``dtype``.
    """
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(dict(config)))
    tiny_models.write_tokenizer(folder)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        stored = (dtypes or {}).get(name, dtype)
        begin, end = end, end + ITEM_BYTES[stored] * math.prod(shape)
        header[name] = {"dtype": stored, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return folder


def mixture(*, fused: bool = False, experts: int = 2) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration and shapes of a Qwen3-MoE of two blocks; ``fused``: the weights of all
    experts of a block in one tensor.
    """
    hidden, inner = 128, 256
    config = tiny_models.config("llama", hidden=hidden, intermediate=inner) | {
        "model_type": "qwen3_moe",
        "architectures": ["Qwen3MoeForCausalLM"],
        "num_experts": experts,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": inner,
    }
    shapes: dict[str, Any] = {}
    for name, shape in tiny_models.shapes(config).items():
        block, _, rest = name.partition(".mlp.")
        if not rest:
            shapes[name] = shape
        elif rest.startswith("gate_proj"):
            shapes[f"{block}.mlp.gate.weight"] = (experts, hidden)
            if fused:
                shapes[f"{block}.mlp.experts.gate_up_proj"] = (experts, 2 * inner, hidden)
                shapes[f"{block}.mlp.experts.down_proj"] = (experts, hidden, inner)
                continue
            for number in range(experts):
                expert = f"{block}.mlp.experts.{number}"
                shapes[f"{expert}.gate_proj.weight"] = (inner, hidden)
                shapes[f"{expert}.up_proj.weight"] = (inner, hidden)
                shapes[f"{expert}.down_proj.weight"] = (hidden, inner)
    return config, shapes
