"""The tiny Llama of `fixtures.tiny`, counted by hand: what plans and results have to say of it."""

from __future__ import annotations

import math

HIDDEN, INNER, KEYS, BLOCKS, VOCABULARY = 64, 192, 32, 2, 272

LINEARS = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEYS, HIDDEN),
    "self_attn.v_proj": (KEYS, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
"""[out, in] of the linear layers of a block."""

NORMS = ("input_layernorm", "post_attention_layernorm")

TENSORS = {
    "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
    "model.norm.weight": (HIDDEN,),
    **{
        f"model.layers.{block}.{name}.weight": shape
        for block in range(BLOCKS)
        for name, shape in {**LINEARS, **dict.fromkeys(NORMS, (HIDDEN,))}.items()
    },
}
"""Shapes by name. The output head is the embedding."""

PARAMETERS = sum(math.prod(shape) for shape in TENSORS.values())
SOURCE_BYTES = 2 * PARAMETERS
LINEAR_COUNT = BLOCKS * len(LINEARS)
LINEAR_PARAMETERS = BLOCKS * sum(math.prod(shape) for shape in LINEARS.values())
NORM_COUNT = BLOCKS * len(NORMS) + 1
