"""From config.json and tensor headers to the description of a GGUF file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from quantd_server.errors import Finding, quoted
from quantd_server.methods.gguf.architectures.family import (
    Dimensions,
    Family,
    Shapes,
    common_metadata,
    read_dimensions,
)
from quantd_server.methods.gguf.architectures.gemma import GEMMA2, GEMMA3
from quantd_server.methods.gguf.architectures.llama import LLAMA, MISTRAL
from quantd_server.methods.gguf.architectures.phi import PHI3
from quantd_server.methods.gguf.architectures.qwen import QWEN2, QWEN3
from quantd_server.methods.gguf.config_reader import ConfigReader
from quantd_server.methods.gguf.description import (
    ArchitectureDescription,
    ConvertedTensor,
    MetadataEntry,
    SkippedTensor,
    string,
)
from quantd_server.methods.gguf.report import FIELD
from quantd_server.methods.gguf.rope import RopeParameters

FAMILIES: dict[str, Family] = {
    "llama": LLAMA,
    "mistral": MISTRAL,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "gemma2": GEMMA2,
    "gemma3": GEMMA3,
    "gemma3_text": GEMMA3,
    "phi3": PHI3,
}
"""``model_type`` of config.json to family."""

FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})
TEXT_MODEL_PREFIXES = ("model.language_model.", "language_model.model.", "language_model.")
MAX_NAMES = 8
"""Tensor names listed in one finding."""

SKIPPED_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"\.rotary_emb\.(inv_freq|cos_cached|sin_cached)$"),
        "computed from rope_theta when the model is loaded",
    ),
    (
        re.compile(r"^(model\.)?(vision_tower|multi_modal_projector)\."),
        "vision part: a GGUF text model does not hold it",
    ),
)

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]


def describe(config: Mapping[str, Any], tensors: Tensors) -> ArchitectureDescription:
    """Describes the GGUF file of a Hugging Face checkpoint.

    ``config`` is config.json; ``tensors`` maps each tensor name to its safetensors dtype and its
    row-major shape. Never raises for a bad checkpoint: what cannot be converted is a finding,
    and each source tensor ends in ``tensors``, in ``skipped`` or in a finding.
    """
    model_type = config.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        return _unknown_architecture(config)
    text = config.get("text_config")
    merged = {**family.defaults, **{k: v for k, v in config.items() if k != "text_config"}}
    if isinstance(text, Mapping):
        merged |= text
    reader = ConfigReader(merged)
    dims = read_dimensions(reader)
    extras = family.extras(reader, dims, RopeParameters(reader))
    converted, skipped = _map_tensors(family, dims, tensors, reader)
    metadata = [
        *_general_metadata(config, converted),
        *common_metadata(family.gguf_arch, dims, reader),
        *extras.metadata,
    ]
    return ArchitectureDescription(
        gguf_arch=family.gguf_arch,
        metadata=tuple(metadata),
        tensors=(*converted, *extras.tensors),
        skipped=tuple(skipped),
        findings=tuple(reader.findings),
    )


def _unknown_architecture(config: Mapping[str, Any]) -> ArchitectureDescription:
    finding = Finding(
        field=FIELD,
        reason="GGUF_ARCHITECTURE_UNSUPPORTED",
        message=(
            f"model_type {quoted(config.get('model_type'))} (architectures "
            f"{quoted(config.get('architectures'))}) cannot be converted to GGUF; known: "
            f"{', '.join(sorted(FAMILIES))}"
        ),
        remedy="convert the model to an unquantized .gguf with llama.cpp and quantize that file",
        kind="precondition",
    )
    return ArchitectureDescription(
        gguf_arch="", metadata=(), tensors=(), skipped=(), findings=(finding,)
    )


def _general_metadata(
    config: Mapping[str, Any], tensors: list[ConvertedTensor]
) -> list[MetadataEntry]:
    from gguf import size_label

    count = sum(math.prod(tensor.shape) for tensor in tensors)
    entries = [string("general.type", "model")]
    name = config.get("_name_or_path") or config.get("name")
    if isinstance(name, str) and name:
        # Only the last part: the rest may be a path of the machine that saved the model.
        entries.append(string("general.name", re.split(r"[/\\]", name.rstrip("/\\"))[-1]))
    entries.append(string("general.size_label", size_label(count, count, 0, 0)))
    licence = config.get("license")
    if isinstance(licence, str) and licence:
        entries.append(string("general.license", licence))
    return entries


def _map_tensors(
    family: Family, dims: Dimensions, tensors: Tensors, reader: ConfigReader
) -> tuple[list[ConvertedTensor], list[SkippedTensor]]:
    required, optional = _all_shapes(family, dims)
    tied = not family.separate_output or reader.flag("tie_word_embeddings", default=False)
    if tied:
        required.pop("output.weight", None)
    expected = required | optional
    names = _NameMap(family.gguf_arch, dims.blocks)
    converted: dict[str, ConvertedTensor] = {}
    skipped: list[SkippedTensor] = []
    unmapped: list[str] = []
    for source, (dtype, shape) in tensors.items():
        reason = _skip_reason(source)
        name = names.gguf_name(_as_text_model(source))
        if reason is None and name == "output.weight" and tied:
            reason = "tied: the token embedding is also the output layer"
        if reason is not None:
            skipped.append(SkippedTensor(name=source, reason=reason))
        elif name not in expected or name in converted:
            unmapped.append(source)
        elif dtype not in FLOAT_DTYPES or tuple(shape) != expected[name]:
            _report_unusable(source, dtype, shape, expected[name], reader)
        else:
            converted[name] = _convert(name, source, dtype, shape, family, dims)
    _report_unmapped(unmapped, family, reader)
    _report_missing([name for name in required if name not in converted], tensors, reader)
    return [converted[name] for name in expected if name in converted], skipped


def _convert(
    name: str,
    source: str,
    dtype: str,
    shape: tuple[int, ...],
    family: Family,
    dims: Dimensions,
) -> ConvertedTensor:
    transform, head_count = family.transform(name, dims)
    return ConvertedTensor(
        name=name,
        source=source,
        source_dtype=dtype,
        shape=tuple(shape),
        transform=transform,
        head_count=head_count,
        keep_f32=len(shape) < 2,
    )


def _all_shapes(family: Family, dims: Dimensions) -> tuple[Shapes, Shapes]:
    """Required and optional tensors of the whole file, in file order."""
    required: Shapes = {"token_embd.weight": (dims.vocabulary, dims.hidden)}
    optional: Shapes = {}
    for block in range(dims.blocks):
        required |= {f"blk.{block}.{k}": v for k, v in family.required(dims).items()}
        optional |= {f"blk.{block}.{k}": v for k, v in family.optional(dims).items()}
    required["output_norm.weight"] = (dims.hidden,)
    required["output.weight"] = (dims.vocabulary, dims.hidden)
    return required, optional


class _NameMap:
    """Source name to GGUF name by the ``gguf`` package's table."""

    def __init__(self, gguf_arch: str, blocks: int) -> None:
        from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

        arch = next(key for key, value in MODEL_ARCH_NAMES.items() if value == gguf_arch)
        self._map = get_tensor_name_map(arch, blocks)

    def gguf_name(self, source: str) -> str:
        """The GGUF name, or the empty string if the table has none."""
        return self._map.get_name(source, try_suffixes=(".weight", ".bias")) or ""


def _as_text_model(source: str) -> str:
    """The name that a text-only checkpoint gives a tensor of a multimodal one's text part."""
    for prefix in TEXT_MODEL_PREFIXES:
        if source.startswith(prefix):
            rest = source.removeprefix(prefix)
            return rest if rest.startswith("lm_head.") else f"model.{rest}"
    return source


def _skip_reason(source: str) -> str | None:
    return next((reason for pattern, reason in SKIPPED_PATTERNS if pattern.search(source)), None)


def _report_unusable(
    source: str,
    dtype: str,
    shape: tuple[int, ...],
    expected: tuple[int, ...],
    reader: ConfigReader,
) -> None:
    if dtype not in FLOAT_DTYPES:
        reader.error(
            "GGUF_SOURCE_DTYPE_UNSUPPORTED",
            f"tensor {quoted(source)} is {dtype}; only {', '.join(sorted(FLOAT_DTYPES))} weights "
            f"can be converted",
            "use the unquantized checkpoint of this model",
            subjects=[source],
        )
        return
    reader.error(
        "GGUF_TENSOR_SHAPE_MISMATCH",
        f"tensor {quoted(source)} has shape {list(shape)}; config.json says {list(expected)}",
        "check that config.json belongs to these weights",
        subjects=[source],
    )


def _report_unmapped(unmapped: list[str], family: Family, reader: ConfigReader) -> None:
    if unmapped:
        reader.error(
            "GGUF_TENSOR_UNMAPPED",
            f"{len(unmapped)} tensors have no place in llama.cpp's {family.gguf_arch} "
            f"architecture: {_listed(unmapped)}",
            "choose another method, or remove these tensors if the model does not use them",
            subjects=unmapped,
        )


def _report_missing(missing: list[str], tensors: Tensors, reader: ConfigReader) -> None:
    if missing:
        reader.error(
            "GGUF_TENSOR_MISSING",
            f"{len(missing)} tensors that llama.cpp needs are not among the {len(tensors)} of "
            f"the checkpoint: {_listed(missing)}",
            "check that all shards are there and that config.json belongs to these weights",
            subjects=missing,
        )


def _listed(names: list[str]) -> str:
    shown = ", ".join(quoted(name) for name in names[:MAX_NAMES])
    rest = len(names) - MAX_NAMES
    return f"{shown} and {rest} more" if rest > 0 else shown
