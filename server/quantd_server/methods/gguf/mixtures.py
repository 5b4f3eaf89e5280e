"""Which tensors of a GGUF file type get more bits than its base type.

The facts are those of llama.cpp's quantizer (``llama_tensor_get_type_impl`` and its neighbours in
src/llama-quant.cpp, version 0.5), laid out as tables: for a file type and the role of a tensor,
the first rule whose condition holds gives the type; if none does, the base type stays.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

import msgspec


class Role(enum.Enum):
    """What a tensor does in the model; decides which rules apply to it."""

    OUTPUT = "output"
    TOKEN_EMBEDDING = "token_embd"  # noqa: S105 -- a tensor name, no password
    ATTENTION_VALUE = "attn_v"
    """Also a fused attn_qkv and attn_kv_b."""
    ATTENTION_KEY = "attn_k"
    ATTENTION_QUERY = "attn_q"
    ATTENTION_OUTPUT = "attn_output"
    FFN_UP = "ffn_up"
    FFN_GATE = "ffn_gate"
    FFN_DOWN = "ffn_down"
    OTHER = "other"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What a condition may look at."""

    layer: int
    """Position among the tensors of this role, from 0."""
    layers: int
    heads_per_kv_head: int
    experts: int
    has_imatrix: bool


class Rule(msgspec.Struct, frozen=True):
    """``type`` if ``condition`` holds at a place."""

    type: str
    condition: Callable[[Place], bool]


def use_more_bits(layer: int, layers: int) -> bool:
    """The first and last eighth of the layers and every third one between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def always(_place: Place) -> bool:
    return True


def more_bits(place: Place) -> bool:
    return use_more_bits(place.layer, place.layers)


def first_two(place: Place) -> bool:
    return place.layer < 2


def first_four(place: Place) -> bool:
    return place.layer < 4


def first_eighth(place: Place) -> bool:
    return place.layer < place.layers // 8


def first_sixteenth(place: Place) -> bool:
    return place.layer < place.layers // 16


def middle(place: Place) -> bool:
    return place.layers // 8 <= place.layer < 7 * place.layers // 8


def grouped_queries(place: Place) -> bool:
    return place.heads_per_kv_head >= 4


def first_eighth_with_imatrix(place: Place) -> bool:
    return place.has_imatrix and first_eighth(place)


def first_eighth_without_imatrix(place: Place) -> bool:
    return not place.has_imatrix and first_eighth(place)


def more_bits_of_eight_experts(place: Place) -> bool:
    return place.experts == EIGHT_EXPERTS and more_bits(place)


EIGHT_EXPERTS = 8
"""Mixtral's number of experts, for which llama.cpp has rules of its own."""

Mixture = dict[Role, tuple[Rule, ...]]

_GROUPED_Q4: Mixture = {Role.ATTENTION_VALUE: (Rule("Q4_K", grouped_queries),)}
_IQ4: Mixture = {
    Role.ATTENTION_VALUE: (Rule("Q5_K", grouped_queries),),
    Role.FFN_DOWN: (Rule("Q5_K", first_eighth_without_imatrix),),
}
_MEDIUM: Mixture = {
    Role.ATTENTION_VALUE: (Rule("Q6_K", more_bits),),
    Role.FFN_DOWN: (Rule("Q6_K", more_bits),),
}
_TERNARY: Mixture = {Role.TOKEN_EMBEDDING: (Rule("Q4_K", always),)}

MIXTURES: dict[str, Mixture] = {
    "Q4_0": {Role.FFN_DOWN: (Rule("Q4_1", first_eighth_with_imatrix),)},
    "Q5_0": {Role.FFN_DOWN: (Rule("Q5_1", first_eighth_with_imatrix),)},
    "Q2_K": {
        Role.ATTENTION_VALUE: (Rule("Q4_K", grouped_queries), Rule("Q3_K", always)),
        Role.FFN_DOWN: (Rule("Q3_K", always),),
        Role.ATTENTION_OUTPUT: (Rule("Q3_K", always),),
    },
    "Q2_K_S": _GROUPED_Q4 | {Role.FFN_DOWN: (Rule("Q4_K", first_eighth),)},
    "Q3_K_M": {
        Role.ATTENTION_VALUE: (Rule("Q5_K", first_two), Rule("Q4_K", always)),
        Role.FFN_DOWN: (Rule("Q5_K", first_sixteenth), Rule("Q4_K", always)),
        Role.ATTENTION_OUTPUT: (Rule("Q4_K", always),),
    },
    "Q3_K_L": {
        Role.ATTENTION_VALUE: (Rule("Q5_K", always),),
        Role.FFN_DOWN: (Rule("Q5_K", always),),
        Role.ATTENTION_OUTPUT: (Rule("Q5_K", always),),
    },
    "Q4_K_S": {
        Role.ATTENTION_VALUE: (Rule("Q5_K", first_four),),
        Role.FFN_DOWN: (Rule("Q5_K", first_eighth),),
    },
    "Q4_K_M": _MEDIUM,
    "Q5_K_M": _MEDIUM,
    "IQ4_NL": _IQ4,
    "IQ4_XS": _IQ4,
    "IQ3_S": _GROUPED_Q4,
    "IQ3_XS": _GROUPED_Q4
    | {
        Role.ATTENTION_KEY: (Rule("IQ3_XXS", always),),
        Role.ATTENTION_QUERY: (Rule("IQ3_XXS", always),),
        Role.FFN_GATE: (Rule("IQ3_XXS", middle),),
        Role.FFN_UP: (Rule("IQ3_XXS", middle),),
    },
    "IQ3_M": {
        Role.ATTENTION_VALUE: (Rule("Q4_K", always),),
        Role.FFN_DOWN: (Rule("Q4_K", first_eighth), Rule("Q4_K", more_bits_of_eight_experts)),
        Role.ATTENTION_OUTPUT: (Rule("Q4_K", always),),
    },
    "TQ1_0": _TERNARY,
    "TQ2_0": _TERNARY,
}
"""File types without an entry are their base type everywhere but in the output layer."""

FALCON = "falcon"
FALCON_MIXTURES: dict[str, Mixture] = {
    "Q3_K_M": {
        Role.FFN_DOWN: (
            Rule("Q5_K", first_sixteenth),
            Rule("Q4_K", more_bits),
            Rule("Q3_K", always),
        ),
        Role.ATTENTION_OUTPUT: (),
    },
    "Q3_K_L": {
        Role.FFN_DOWN: (Rule("Q4_K", always),),
        Role.ATTENTION_OUTPUT: (Rule("Q4_K", always),),
    },
    "Q4_K_S": {Role.FFN_DOWN: ()},
    "Q4_K_M": {
        Role.FFN_DOWN: (
            Rule("Q6_K", first_sixteenth),
            Rule("Q5_K", more_bits),
            Rule("Q4_K", always),
        )
    },
    "Q2_K": {Role.ATTENTION_OUTPUT: ()},
    "IQ3_M": {Role.ATTENTION_OUTPUT: ()},
}
"""Where Falcon differs, its rules replace the others of the same role."""

EXPERT_ATTENTION_OUTPUT = "Q5_K"
EXPERT_ATTENTION_OUTPUT_FILE_TYPES = frozenset(
    {"Q2_K", "IQ3_XS", "Q3_K_S", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q4_K_M", "IQ3_S", "IQ3_M"}
    | {"IQ4_XS"}
)
"""With eight experts attn_output is Q5_K in these and the base type in all others."""

EXPERT_ATTENTION = "Q8_0"
"""With eight experts attn_k and attn_v take this: it costs little there."""

LARGE_MODEL_BLOCKS = {"llama": 80, "qwen2": 80, "deci": 80, "olmo": 80, "jais2": 68}
"""Blocks of the model that llama.cpp calls "70B", by architecture (llama: with grouped queries)."""
LARGE_MODEL_VALUE = {"Q3_K": "Q5_K", "Q4_K": "Q5_K"}
"""A 70B model shares each value head among eight query heads, so attn_v is small and gets more."""

AT_LEAST_Q8 = {"glm5-next": ("attn_q_a", "attn_q_b", "nextn.eh_proj")}
"""Tensors (by a part of their name) that never go below Q8_0 in an architecture."""

FALLBACKS = {
    "IQ1_S": "IQ4_NL",
    "IQ1_M": "IQ4_NL",
    "IQ2_XXS": "IQ4_NL",
    "IQ2_XS": "IQ4_NL",
    "IQ2_S": "IQ4_NL",
    "IQ3_XXS": "IQ4_NL",
    "IQ3_S": "IQ4_NL",
    "IQ4_XS": "IQ4_NL",
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "TQ1_0": "Q4_0",
    "TQ2_0": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
"""Types with blocks of 256 to the type that rows of another multiple of 32 get."""

NEEDS_IMATRIX = frozenset({"IQ3_XXS", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_M", "IQ1_S"})
"""Types that are useless without importance weights (except in embedding and output)."""

_EMBEDDING_NAMES = ("token_embd.weight", "per_layer_token_embd.weight")
_ROLE_BY_PART = (
    ("attn_qkv.weight", Role.ATTENTION_VALUE),
    ("attn_kv_b.weight", Role.ATTENTION_VALUE),
    ("attn_v.weight", Role.ATTENTION_VALUE),
    ("attn_k.weight", Role.ATTENTION_KEY),
    ("attn_q.weight", Role.ATTENTION_QUERY),
    ("attn_output.weight", Role.ATTENTION_OUTPUT),
    ("ffn_up", Role.FFN_UP),
    ("ffn_gate", Role.FFN_GATE),
    ("ffn_down", Role.FFN_DOWN),
)

_KEPT_NAMES = frozenset({"position_embd.weight", "token_types.weight"})
_KEPT_PARTS = (
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    *(
        f"time_mix_{part}.weight"
        for part in ("first", "w0", "w1", "w2", "v0", "v1", "v2", "a0", "a1", "a2", "g1", "g2")
    ),
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    "attn_rel_b.weight",
    ".position_embd",
    "sam.pos_embd",
    "sam.neck.",
    "sam.net_",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
    "a.rvq.codebook",
    "mm.a.code_embd",
)
"""Small or sensitive tensors that stay as they are."""


def role_of(name: str) -> Role:
    if name == "output.weight":
        return Role.OUTPUT
    if name in _EMBEDDING_NAMES:
        return Role.TOKEN_EMBEDDING
    return next((role for part, role in _ROLE_BY_PART if part in name), Role.OTHER)


def why_kept(name: str, shape: tuple[int, ...]) -> str | None:
    """Why a tensor is never quantized, or None if it may be."""
    leading = next((index for index, size in enumerate(shape) if size != 1), len(shape))
    if len(shape) - leading < 2:
        return "one-dimensional"
    if not name.endswith("weight"):
        return "not a weight"
    if name in _KEPT_NAMES or any(part in name for part in _KEPT_PARTS):
        return "small or sensitive"
    return None


def rules_for(file_type: str, role: Role, gguf_arch: str) -> tuple[Rule, ...]:
    if gguf_arch == FALCON and role in FALCON_MIXTURES.get(file_type, {}):
        return FALCON_MIXTURES[file_type][role]
    return MIXTURES.get(file_type, {}).get(role, ())
