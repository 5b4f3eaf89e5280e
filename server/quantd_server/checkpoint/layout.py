"""What each tensor of a Hugging Face checkpoint is, from names, shapes and config alone.

One rule names the role of every tensor; the table of known families says whether the rule saw
only what it should (``recognized``).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from quantd_server.checkpoint.families import BLOCK_WEIGHTS, CONV1D_FAMILIES, TIED_BY_DEFAULT


class TensorRole(enum.StrEnum):
    """What a tensor is for."""

    LINEAR = "linear"
    """Weight of a linear layer in a decoder block."""
    EXPERT = "expert"
    """Weight of one linear layer of one expert."""
    FUSED_EXPERTS = "fused_experts"
    """Weights of all experts of a block in one tensor, 3-D in most families."""
    ROUTER = "router"
    """Chooses experts, or gates a shared one."""
    EMBEDDING = "embedding"
    POSITION_EMBEDDING = "position_embedding"
    OUTPUT_HEAD = "output_head"
    NORM = "norm"
    BIAS = "bias"
    OTHER = "other"
    """Convolutions, buffers, vision towers, extra prediction layers."""


BLOCK_WEIGHT_ROLES = frozenset(
    {TensorRole.LINEAR, TensorRole.EXPERT, TensorRole.FUSED_EXPERTS, TensorRole.ROUTER}
)
"""Roles of the weights that the table of known families lists."""


class TensorPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where in the model a tensor belongs."""

    name: str
    role: TensorRole
    module: str
    """Name of the module that holds it: ``name`` without its last part."""
    block: int | None
    """Index of its decoder block."""
    is_linear_module: bool
    """Whether transformers 5 holds it in an ``nn.Linear`` (or ``Conv1D``). Experts and most
    routers are bare parameters there; linears of vision towers are modules with role OTHER."""
    transposed: bool
    """Stored [in, out] (Conv1D) instead of [out, in]."""


class ModelLayout(msgspec.Struct, frozen=True, kw_only=True):
    """The tensors of a checkpoint, sorted out."""

    model_type: str
    recognized: bool
    """A known family, in which every block weight is one that the family has."""
    unexpected: tuple[str, ...]
    """Block weights that a known family does not have."""
    block_prefix: str
    """E.g. ``model.layers``; empty where no decoder blocks were found."""
    blocks: int
    """Decoder blocks with tensors in the checkpoint."""
    declared_blocks: int | None
    """Decoder blocks that the config announces."""
    embedding: str | None
    output_head: str | None
    """Names of these tensors; None where not stored."""
    tied_embeddings: bool
    """The output head shares the embedding's weight."""
    places: dict[str, TensorPlace]

    def with_role(self, *roles: TensorRole) -> Iterable[TensorPlace]:
        """The places whose role is one of ``roles``, in checkpoint order."""
        return (place for place in self.places.values() if place.role in roles)


_BLOCK = re.compile(r"(?P<prefix>(?:.*?\.)??(?:layers|h|blocks|block|layer))\.(?P<index>\d{1,6})\.")
_EXPERT_NUMBER = re.compile(r"(?<=experts\.)\d+(?=\.)")
_EXPERTS = re.compile(r"(^|\.)experts\.")
_NORM = re.compile(r"(^|\.)(\w*norms?\d*|\w*norm_\w{1,2}|ln|ln_\w+|ln\d+)(\.|$)", re.IGNORECASE)
_TOWER = re.compile(r"(vision|visual|audio|image|speech|encoder|mtp|multi_modal|connector)")
_ROUTERS = re.compile(r"(^|\.)(gate|router|router\.layer|shared_expert_gate|wg)$")
_EMBEDDINGS = frozenset({"embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings"})
_POSITIONS = frozenset({"wpe", "embed_positions", "position_embeddings", "position_embedding"})
_HEADS = frozenset({"lm_head", "embed_out"})
_GATES_IN_LINEAR = frozenset({"shared_expert_gate"})
_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


def model_layout(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> ModelLayout:
    """Sorts out the tensors named in ``shapes`` (name to row-major shape)."""
    model_type = str(config.get("model_type", ""))
    text_config = config.get("text_config")
    text = text_config if isinstance(text_config, Mapping) else config
    family = model_type if model_type in BLOCK_WEIGHTS else str(text.get("model_type", ""))
    known = BLOCK_WEIGHTS.get(family)
    declared = next((text[key] for key in _COUNTS if type(text.get(key)) is int), None)

    prefix = _block_prefix(shapes)
    places: dict[str, TensorPlace] = {}
    unexpected: list[str] = []
    found: set[int] = set()
    for name, shape in shapes.items():
        module, _, leaf = name.rpartition(".")
        block, inner = _split(name, prefix)
        is_loaded = block is None or declared is None or block < declared
        if not is_loaded:
            # Extra prediction layers, which transformers does not load.
            role = TensorRole.OTHER
        elif block is None:
            role = _role_outside(module, leaf, shape)
        else:
            found.add(block)
            role = _role_in_block(inner, shape)
            weight = _EXPERT_NUMBER.sub("#", inner)
            if known is not None and role in BLOCK_WEIGHT_ROLES and weight not in known:
                unexpected.append(name)
        places[name] = TensorPlace(
            name=name,
            role=role,
            module=module,
            block=block,
            is_linear_module=is_loaded and _is_linear_module(role, module, leaf, shape),
            transposed=role is TensorRole.LINEAR and family in CONV1D_FAMILIES,
        )
    embedding = _first(places, TensorRole.EMBEDDING)
    head = _first(places, TensorRole.OUTPUT_HEAD)
    return ModelLayout(
        model_type=model_type,
        recognized=known is not None and not unexpected and bool(found) and embedding is not None,
        unexpected=tuple(unexpected),
        block_prefix=prefix,
        blocks=len(found),
        declared_blocks=declared,
        embedding=embedding,
        output_head=head,
        tied_embeddings=_is_tied(config, text, family, head),
        places=places,
    )


def _block_prefix(names: Iterable[str]) -> str:
    """The prefix of the decoder blocks.

    Of the prefixes that number blocks, the one with most tensors; text goes before towers.
    """
    counts: dict[str, int] = {}
    for name in names:
        match = _BLOCK.match(name)
        if match:
            counts[match["prefix"]] = counts.get(match["prefix"], 0) + 1
    if not counts:
        return ""
    return max(counts, key=lambda prefix: (_TOWER.search(prefix) is None, counts[prefix], prefix))


def _split(name: str, prefix: str) -> tuple[int | None, str]:
    """Block index and name within the block; (None, name) outside the decoder blocks."""
    match = _BLOCK.match(name)
    if match is None or match["prefix"] != prefix:
        return None, name
    return int(match["index"]), name[match.end() :]


def _role_in_block(inner: str, shape: tuple[int, ...]) -> TensorRole:
    module, _, leaf = inner.rpartition(".")
    if leaf.endswith("bias") and len(shape) <= 2:
        return TensorRole.BIAS
    if leaf == "weight" and _NORM.search(module):
        return TensorRole.NORM
    if leaf == "weight" and len(shape) == 2 and _EXPERT_NUMBER.search(inner):
        return TensorRole.EXPERT
    if (len(shape) >= 2 and _EXPERTS.search(inner)) or (len(shape) == 3 and "moe" in module):
        return TensorRole.FUSED_EXPERTS
    if leaf != "weight" or len(shape) != 2:
        return TensorRole.OTHER
    return TensorRole.ROUTER if _ROUTERS.search(module) else TensorRole.LINEAR


def _role_outside(module: str, leaf: str, shape: tuple[int, ...]) -> TensorRole:
    owner = module.rpartition(".")[2]
    if _TOWER.search(module):
        return TensorRole.OTHER
    if leaf == "bias":
        return TensorRole.BIAS
    if leaf != "weight":
        return TensorRole.OTHER
    if _NORM.search(module):
        return TensorRole.NORM
    if len(shape) == 2 and owner in _EMBEDDINGS:
        return TensorRole.EMBEDDING
    if len(shape) == 2 and owner in _POSITIONS:
        return TensorRole.POSITION_EMBEDDING
    return TensorRole.OUTPUT_HEAD if len(shape) == 2 and owner in _HEADS else TensorRole.OTHER


def _is_linear_module(role: TensorRole, module: str, leaf: str, shape: tuple[int, ...]) -> bool:
    if role in (TensorRole.LINEAR, TensorRole.OUTPUT_HEAD):
        return True
    owner = module.rpartition(".")[2]
    if role is TensorRole.ROUTER:
        return owner in _GATES_IN_LINEAR
    is_matrix = role is TensorRole.OTHER and leaf == "weight" and len(shape) == 2
    return is_matrix and "embed" not in owner and not _NORM.search(module)


def _is_tied(
    config: Mapping[str, Any],
    text: Mapping[str, Any],
    family: str,
    head: str | None,
) -> bool:
    for holder in (config, text):
        if isinstance(holder.get("tie_word_embeddings"), bool):
            return bool(holder["tie_word_embeddings"])
    if family in BLOCK_WEIGHTS or family in TIED_BY_DEFAULT:
        return family in TIED_BY_DEFAULT
    return head is None


def _first(places: Mapping[str, TensorPlace], role: TensorRole) -> str | None:
    return next((place.name for place in places.values() if place.role is role), None)
