"""Where the inverse of input scales can go: what AWQ changes besides the weights it quantizes.

AWQ (Lin et al. 2023, arXiv:2306.00978) multiplies input channels of a linear layer by ``s`` before
rounding. The model computes the same as before only if what produces these channels is divided by
``s``, and if every other reader of them is multiplied as well. A :class:`Folding` is one such
place.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from quantd_server.checkpoint.huggingface import HuggingFaceCheckpoint
from quantd_server.checkpoint.layout import ModelLayout, TensorRole, model_layout
from quantd_server.errors import Finding, Severity
from quantd_server.methods.linear_weights import finding

Divided = Literal["NORM", "NORM_PLUS_ONE", "ROWS"]
"""What takes up 1 / s: the weight (and bias) of a norm; the weight of a norm that computes with
(1 + weight), so that it becomes (1 + weight) / s - 1; rows of a linear layer, with their bias."""


class Folding(msgspec.Struct, frozen=True, kw_only=True):
    """One vector of scales: what is divided by it and what is multiplied. Names are full."""

    block: int
    previous: str
    """Module that is divided."""
    divided: Divided
    channels: int
    """Length of the vector."""
    first_row: int = 0
    """Of ROWS: rows [first_row, first_row + channels) are divided."""
    following: tuple[str, ...]
    """Modules whose input channels (columns) are multiplied: all readers of these channels, in the
    order of the checkpoint; some of them may not be quantized (routers)."""


class _Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """The foldings of one family."""

    attention_norm: str = "input_layernorm"
    mlp_norm: str = "post_attention_layernorm"
    plus_one: bool = False


_PLAIN = _Recipe()
_GEMMA = _Recipe(plus_one=True)
_GEMMA_2 = _Recipe(mlp_norm="pre_feedforward_layernorm", plus_one=True)

_FAMILIES: dict[str, _Recipe] = {
    "gemma": _GEMMA,
    "gemma2": _GEMMA_2,
    "gemma3": _GEMMA_2,
    "gemma3_text": _GEMMA_2,
    "llama": _PLAIN,
    "mistral": _PLAIN,
    "mixtral": _PLAIN,
    "phi3": _PLAIN,
    "qwen2": _PLAIN,
    "qwen2_moe": _PLAIN,
    "qwen3": _PLAIN,
    "qwen3_moe": _PLAIN,
}

FAMILIES = tuple(_FAMILIES)
"""Values of ``model_type`` whose foldings are known. The tests scale a model of each and compare
what it computes."""

_QUERIES = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.qkv_proj")
_UP_TO_DOWN = {"up_proj": "down_proj", "gate_up_proj": "down_proj", "w3": "w2"}
_MLP_READERS = ("gate_proj", "up_proj", "gate_up_proj", "w1", "w3", "gate", "shared_expert_gate")
"""Linear layers, and routers, that read the output of the norm before the MLP."""


def family_of(config: Mapping[str, Any]) -> str | None:
    """The supported family of a model, told from its configuration; None if it is not one."""
    text = config.get("text_config")
    names = (config.get("model_type"), text.get("model_type") if isinstance(text, dict) else None)
    return next((name for name in names if isinstance(name, str) and name in _FAMILIES), None)


class _Module(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    """Full name."""
    shape: tuple[int, ...]
    """Of its weight."""


def foldings(
    config: Mapping[str, Any], layout: ModelLayout, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[Folding]:
    """All foldings of a model of a supported family, block after block; none of another one.

    ``shapes``: row-major, by tensor name. Left out is what would not be exact: v_proj where several
    query heads share a value head, and the norm before the MLP where the weights of all experts are
    one tensor.
    """
    family = family_of(config)
    if family is None:
        return
    blocks: dict[int, dict[str, _Module]] = {}
    for place in layout.places.values():
        if place.block is not None and place.name.endswith(".weight"):
            inner = place.module.removeprefix(f"{layout.block_prefix}.{place.block}.")
            module = _Module(name=place.module, shape=shapes[place.name])
            blocks.setdefault(place.block, {})[inner] = module
    fused = {place.block for place in layout.with_role(TensorRole.FUSED_EXPERTS)}
    for number in sorted(blocks):
        yield from _norm_foldings(
            number, blocks[number], _FAMILIES[family], has_fused_experts=number in fused
        )
        yield from _row_foldings(number, blocks[number])


def _norm_foldings(
    number: int, modules: Mapping[str, _Module], recipe: _Recipe, *, has_fused_experts: bool
) -> Iterator[Folding]:
    mlp = [
        name
        for name in modules
        if not name.startswith("self_attn.") and name.rpartition(".")[2] in _MLP_READERS
    ]
    readers = {
        recipe.attention_norm: [name for name in modules if name in _QUERIES],
        recipe.mlp_norm: [] if has_fused_experts else mlp,
    }
    for norm, names in readers.items():
        channels = modules[norm].shape[0] if norm in modules else 0
        if names and all(modules[name].shape[1:] == (channels,) for name in names):
            yield Folding(
                block=number,
                previous=modules[norm].name,
                divided="NORM_PLUS_ONE" if recipe.plus_one else "NORM",
                channels=channels,
                following=tuple(modules[name].name for name in names),
            )


def _row_foldings(number: int, modules: Mapping[str, _Module]) -> Iterator[Folding]:
    output = modules.get("self_attn.o_proj")
    for name, module in modules.items():
        parent, _, leaf = name.rpartition(".")
        if leaf in _UP_TO_DOWN:
            # A fused projection computes the gate first, then what is multiplied with it.
            parts = 2 if leaf == "gate_up_proj" else 1
            following = modules.get(f"{parent}.{_UP_TO_DOWN[leaf]}")
        elif name in ("self_attn.v_proj", "self_attn.qkv_proj"):
            # Where each query head has a value head of its own: queries, keys and values are then
            # of one size.
            parts = 3 if leaf == "qkv_proj" else 1
            following = output
        else:
            continue
        if following is not None and module.shape[0] == parts * following.shape[1]:
            channels = following.shape[1]
            yield Folding(
                block=number,
                previous=module.name,
                divided="ROWS",
                channels=channels,
                first_row=(parts - 1) * channels,
                following=(following.name,),
            )


def without_scale_mapping(config: Mapping[str, Any], field: str) -> Iterator[Finding]:
    """Says so if the foldings of a model are not known."""
    if family_of(config) is None:
        yield finding(
            Severity.ERROR,
            "ARCHITECTURE_WITHOUT_SCALE_MAPPING",
            field,
            f"where the inverse of input scales goes is not known for model_type "
            f"{config.get('model_type')!r}; it is for {', '.join(FAMILIES)}",
            "choose gptq without awq_scaling, or another method",
        )


class Rescaling(msgspec.Struct, frozen=True, kw_only=True):
    """The foldings that a set of quantized modules calls for, and what else they change."""

    foldings: tuple[Folding, ...]
    """Those with a quantized module among the following."""
    changed: dict[str, str]
    """By name: why a tensor that is not quantized gets other values."""


def rescaling(
    candidates: Iterable[Folding], quantized: Container[str], tensors: Container[str]
) -> Rescaling:
    """``quantized``: names of modules; ``tensors``: names of all tensors of the source."""
    used = []
    changed: dict[str, str] = {}
    for folding in candidates:
        if not any(module in quantized for module in folding.following):
            continue
        used.append(folding)
        what = "linear layer" if folding.divided == "ROWS" else "norm"
        if folding.previous not in quantized:
            reason = f"{what}, takes up the inverse of the input scales"
            changed[f"{folding.previous}.weight"] = reason
        if f"{folding.previous}.bias" in tensors:
            changed[f"{folding.previous}.bias"] = (
                f"bias of a {what}, takes up the inverse of the input scales"
            )
        for module in folding.following:
            if module not in quantized:
                changed[f"{module}.weight"] = (
                    "reads the same input as quantized layers, takes up its scales"
                )
    return Rescaling(foldings=tuple(used), changed=changed)


def foldings_by_block(checkpoint: HuggingFaceCheckpoint) -> dict[int, tuple[Folding, ...]]:
    """The foldings of each decoder block of a checkpoint."""
    shapes = {name: entry.shape for name, entry in checkpoint.tensors.items()}
    by_block: dict[int, tuple[Folding, ...]] = {}
    for folding in foldings(checkpoint.config, model_layout(checkpoint.config, shapes), shapes):
        by_block[folding.block] = (*by_block.get(folding.block, ()), folding)
    return by_block
