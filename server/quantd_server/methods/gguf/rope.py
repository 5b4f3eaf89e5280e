"""Rotary position embeddings: from config.json to GGUF keys and factor tensors.

Formulas follow transformers' ``modeling_rope_utils`` (llama3: ``_compute_llama3_parameters``;
longrope: ``_compute_longrope_parameters``). llama.cpp divides each inverse frequency by a factor
of ``rope_freqs`` (llama3) or of ``rope_factors_long``/``_short`` (longrope).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from quantd_server.methods.gguf.config_reader import ConfigReader, positive_number
from quantd_server.methods.gguf.description import (
    ConvertedTensor,
    MetadataEntry,
    float32,
    string,
    uint32,
)

DEFAULT_THETA = 10000.0
PLAIN_TYPES = frozenset({"default", "linear", "yarn", "llama3"})


class RopeParameters:
    """The rope section of a config, in the transformers 5 form (``rope_parameters``) or the
    older one (``rope_theta``, ``rope_scaling``, ``rope_local_base_freq``).
    """

    def __init__(self, reader: ConfigReader) -> None:
        config = reader.config
        raw = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if not isinstance(raw, Mapping):
            reader.unsupported(
                "rope_parameters in config.json is not an object",
                "use the config.json that was published with the model",
            )
            raw = {}
        by_layer_type = "full_attention" in raw or "sliding_attention" in raw
        scaling = raw.get("full_attention", {}) if by_layer_type else raw
        local = raw.get("sliding_attention", {}) if by_layer_type else {}
        self.scaling: Mapping[str, Any] = scaling if isinstance(scaling, Mapping) else {}
        local = local if isinstance(local, Mapping) else {}
        self.theta = positive_number(
            reader, self.scaling, "rope_theta", reader.number("rope_theta", DEFAULT_THETA)
        )
        self.local_theta = positive_number(
            reader,
            local,
            "rope_theta",
            reader.number("rope_local_base_freq", DEFAULT_THETA),
        )
        kind = self.scaling.get("rope_type", self.scaling.get("type", "default"))
        self.kind = kind.lower() if isinstance(kind, str) else "default"
        self.partial_factor = positive_number(
            reader,
            self.scaling,
            "partial_rotary_factor",
            reader.number("partial_rotary_factor", 1.0),
        )
        self._reader = reader

    def number(self, key: str, default: float | None = None) -> float:
        return positive_number(self._reader, self.scaling, key, default)

    def integer(self, key: str, default: int) -> int:
        return max(1, int(self.number(key, default)))


def plain_metadata(arch: str, rope: RopeParameters, reader: ConfigReader) -> list[MetadataEntry]:
    """Keys for the default, linear, yarn and llama3 kinds; others become a finding."""
    if rope.partial_factor != 1.0:
        reader.unsupported(
            f"partial_rotary_factor is {rope.partial_factor}; llama.cpp rotates whole heads in "
            f"the {arch} architecture",
            "choose another method",
        )
    entries = [float32(f"{arch}.rope.freq_base", rope.theta)]
    if rope.kind == "linear":
        entries += [
            string(f"{arch}.rope.scaling.type", "linear"),
            float32(f"{arch}.rope.scaling.factor", rope.number("factor")),
        ]
    elif rope.kind == "yarn":
        entries += _yarn_metadata(arch, rope, reader)
    elif rope.kind not in PLAIN_TYPES:
        reader.unsupported(
            f"the rope type {rope.kind!r} cannot be converted for the {arch} architecture; "
            f"known: {', '.join(sorted(PLAIN_TYPES))}",
            "choose another method, or a checkpoint without this rope scaling",
        )
    return entries


def _yarn_metadata(arch: str, rope: RopeParameters, reader: ConfigReader) -> list[MetadataEntry]:
    for key in ("attention_factor", "mscale", "mscale_all_dim"):
        if rope.scaling.get(key) is not None:
            reader.unsupported(
                f"yarn with {key} cannot be converted: llama.cpp computes the attention factor "
                f"from the scaling factor alone",
                f"remove {key} if it has its default value, or choose another method",
            )
    if rope.scaling.get("truncate") is False:
        reader.unsupported(
            "yarn with truncate=false cannot be converted: llama.cpp always rounds the range",
            "choose another method",
        )
    fallback = reader.integer("max_position_embeddings", 2048)
    original = rope.integer("original_max_position_embeddings", fallback)
    entries = [
        string(f"{arch}.rope.scaling.type", "yarn"),
        float32(f"{arch}.rope.scaling.factor", rope.number("factor")),
        uint32(f"{arch}.rope.scaling.original_context_length", original),
    ]
    return entries + [
        float32(f"{arch}.rope.scaling.yarn_{key}", rope.number(key))
        for key in ("beta_fast", "beta_slow")
        if rope.scaling.get(key) is not None
    ]


def llama3_factors(rope: RopeParameters, head_dim: int) -> tuple[float, ...]:
    """The ``rope_freqs`` of Llama 3.1's scaling, one a rotated pair: 1 for short wavelengths,
    ``factor`` for long ones, a smooth blend between.
    """
    factor = rope.number("factor", 8.0)
    low = rope.number("low_freq_factor", 1.0)
    high = rope.number("high_freq_factor", 4.0)
    original = rope.number("original_max_position_embeddings", 8192.0)
    result = []
    for pair in range(0, head_dim, 2):
        wavelength = 2 * math.pi * rope.theta ** (pair / head_dim)
        if wavelength < original / high:
            result.append(1.0)
        elif wavelength > original / low:
            result.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            result.append(1 / ((1 - smooth) / factor + smooth))
    return tuple(result)


def generated(name: str, values: tuple[float, ...]) -> ConvertedTensor:
    """A one-dimensional F32 tensor that the checkpoint does not hold."""
    return ConvertedTensor(
        name=name,
        source=None,
        source_dtype="F32",
        shape=(len(values),),
        values=values,
        keep_f32=True,
    )


def longrope(
    arch: str, rope: RopeParameters, rotated: int, reader: ConfigReader
) -> tuple[list[MetadataEntry], list[ConvertedTensor]]:
    """Keys and factor tensors of Phi-3's longrope (``su`` in its first release)."""
    context = reader.integer("max_position_embeddings")
    top_level = reader.integer("original_max_position_embeddings", context)
    original = rope.integer("original_max_position_embeddings", top_level)
    factors = {}
    for key in ("long_factor", "short_factor"):
        values = rope.scaling.get(key)
        if (
            not isinstance(values, list)
            or len(values) != rotated // 2
            or not all(type(v) in (int, float) and math.isfinite(v) and v > 0 for v in values)
        ):
            reader.unsupported(
                f"{key} of the longrope scaling must be a list of {rotated // 2} numbers above 0",
                "use the config.json that was published with the model",
            )
            values = [1.0] * (rotated // 2)
        factors[key] = tuple(float(v) for v in values)
    scale = rope.number("factor", context / original)
    default_factor = (
        math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 < original else 1.0
    )
    entries = [
        uint32(f"{arch}.rope.scaling.original_context_length", original),
        float32(
            f"{arch}.rope.scaling.attn_factor", rope.number("attention_factor", default_factor)
        ),
    ]
    return entries, [
        generated("rope_factors_long.weight", factors["long_factor"]),
        generated("rope_factors_short.weight", factors["short_factor"]),
    ]
