"""Where a configuration is in a text, and which method it is of.

The order is that of the readers: transformers looks at the flags of bitsandbytes before it looks at
`quant_method`, and files that carry no name at all are told by the fields that only they have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantd_server.errors import quoted
from quantd_server.planning.config_parsing import aqlm, awq, bitsandbytes, gguf, gptq
from quantd_server.planning.config_parsing.json_text import child
from quantd_server.planning.config_parsing.known_methods import KNOWN_METHODS, KnownMethod
from quantd_server.planning.config_parsing.parsed import Notes
from quantd_server.planning.config_parsing.table import MethodTable

TABLES: dict[str, MethodTable] = {
    table.name: table
    for table in (
        bitsandbytes.EIGHT_BIT,
        bitsandbytes.FOUR_BIT,
        gptq.TABLE,
        awq.TABLE,
        gguf.TABLE,
        aqlm.TABLE,
    )
}
"""By field of `MethodConfig`."""

SERVED_NAMES = tuple(dict.fromkeys(table.quant_method for table in TABLES.values()))

_KEYS = ("quantization_config", "compression_config")
_HOLDERS = ("text_config", "llm_config", "language_config")
_MODEL_MARKS = frozenset({"architectures", "model_type", "transformers_version"})

_TELLING_FIELDS: tuple[tuple[str, frozenset[str]], ...] = (
    ("awq", frozenset({"w_bit", "q_group_size", "zero_point"})),
    ("aqlm", frozenset({"num_codebooks", "nbits_per_codebook"})),
    ("gptq", frozenset({"damp_percent", "desc_act", "checkpoint_format", "is_marlin_format"})),
    ("compressed-tensors", frozenset({"config_groups"})),
    ("modelopt", frozenset({"quant_algo", "producer"})),
)
"""Fields that only the configurations of one method have, for those that do not name it."""


@dataclass(frozen=True)
class Block:
    """A `quantization_config` and its path in the text."""

    members: Mapping[str, Any]
    path: str


def locate(root: Mapping[str, Any], notes: Notes) -> Block | None:
    """The configuration in a text; None if there is none, or it is no object, which is noted."""
    for holder, path in _holders(root):
        for key in _KEYS:
            value = holder.get(key)
            if value is None:
                continue
            place = child(path, key)
            if isinstance(value, dict):
                return Block(value, place) if value else None
            notes.refuse(
                place,
                "CONFIG_WRONG_TYPE",
                f"{place} is no object",
                "make it an object, or remove it if the checkpoint is not quantized",
            )
            return None
    is_model = any(key in root for key in (*_KEYS, *_MODEL_MARKS))
    return None if not root or (is_model and "quant_method" not in root) else Block(root, "")


def recognize(block: Block, notes: Notes) -> tuple[str, MethodTable | KnownMethod | None]:
    """The method's name as the reference spells it, and what is known about it.

    None if nothing is, or if it cannot be told which; that is noted.
    """
    members, path = block.members, block.path
    bits = _bitsandbytes_flags(members)
    raw = members.get("quant_method", members.get("method"))
    if raw is None:
        return _unnamed(block, bits, notes)
    if not isinstance(raw, str):
        place = child(path, "quant_method" if "quant_method" in members else "method")
        notes.refuse(place, "CONFIG_WRONG_TYPE", f"{place} is no text", _name_one())
        return "", None
    name = raw.strip().lower()
    if name in ("bitsandbytes_4bit", "bitsandbytes_8bit"):  # as transformers registers them
        bits = bits or (TABLES[name],)
        name = bitsandbytes.QUANT_METHOD
    if name == bitsandbytes.QUANT_METHOD:
        return name, _bitsandbytes(block, bits, notes)
    if bits:
        place = child(path, "quant_method")
        notes.refuse(
            place,
            "CONFIG_CONTRADICTION",
            f"{place} is {quoted(raw)}, but a flag of bitsandbytes (load_in_8bit or load_in_4bit) "
            "is set too, which transformers goes by",
            "remove one of the two",
        )
    if name in TABLES:
        return name, TABLES[name]
    if name in KNOWN_METHODS:
        return name, KNOWN_METHODS[name]
    place = child(path, "quant_method")
    notes.refuse(
        place,
        "QUANT_METHOD_UNKNOWN",
        f"{place} is {quoted(raw)}, which neither quantd nor transformers nor vLLM knows; known "
        f"are {', '.join(sorted({*SERVED_NAMES, *KNOWN_METHODS}))}",
        _name_one(),
    )
    return raw, None


def _holders(root: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], str]]:
    inner = [(root[key], key) for key in _HOLDERS if isinstance(root.get(key), dict)]
    return [(root, ""), *inner]


def _bitsandbytes_flags(members: Mapping[str, Any]) -> tuple[MethodTable, ...]:
    """The methods whose flags are set, as far as a reader is concerned: to anything true."""
    return tuple(
        table
        for table, flags in (
            (bitsandbytes.EIGHT_BIT, bitsandbytes.EIGHT_BIT_FLAGS),
            (bitsandbytes.FOUR_BIT, bitsandbytes.FOUR_BIT_FLAGS),
        )
        if any(members.get(flag) for flag in flags)
    )


def _bitsandbytes(block: Block, bits: tuple[MethodTable, ...], notes: Notes) -> MethodTable | None:
    for flags in (bitsandbytes.EIGHT_BIT_FLAGS, bitsandbytes.FOUR_BIT_FLAGS):
        public, private = (block.members.get(flag) for flag in flags)
        if public is not None and private is not None and bool(public) is not bool(private):
            place = child(block.path, flags[1])
            notes.refuse(
                place,
                "CONFIG_CONTRADICTION",
                f"{place} says otherwise than {flags[0]}",
                "give both the same value, or remove one",
            )
    place = child(block.path, "load_in_4bit")
    if len(bits) > 1:
        notes.refuse(
            place,
            "BITSANDBYTES_FLAGS_EXCLUSIVE",
            "load_in_8bit and load_in_4bit are both true; exactly one has to be",
            "set one of them to false",
        )
        return None
    if not bits:
        notes.refuse(
            place,
            "BITSANDBYTES_FLAG_MISSING",
            "neither load_in_8bit nor load_in_4bit is true; exactly one has to be",
            "set load_in_8bit or load_in_4bit to true",
        )
        return None
    return bits[0]


def _unnamed(
    block: Block, bits: tuple[MethodTable, ...], notes: Notes
) -> tuple[str, MethodTable | KnownMethod | None]:
    """The method of a configuration that has no name in it."""
    members = block.members
    if any(
        key in bitsandbytes.FLAGS or key.startswith(("bnb_4bit_", "llm_int8_")) for key in members
    ):
        return bitsandbytes.QUANT_METHOD, _bitsandbytes(block, bits, notes)
    for name, fields in _TELLING_FIELDS:
        if not fields.isdisjoint(members):
            return name, TABLES.get(name) or KNOWN_METHODS[name]
    place = child(block.path, "quant_method")
    notes.refuse(
        place,
        "QUANT_METHOD_MISSING",
        f"{place} is not set, and no field tells the method",
        _name_one(),
    )
    return "", None


def _name_one() -> str:
    return f"name a method that quantd serves: {', '.join(SERVED_NAMES)}"
