"""A checkpoint as its headers describe it, of either kind."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from quantd_server.checkpoint.huggingface import HuggingFaceCheckpoint
from quantd_server.checkpoint.layout import ModelLayout, TensorRole, model_layout
from quantd_server.checkpoint.layout_findings import layout_findings
from quantd_server.checkpoint.opening import Checkpoint, GgufCheckpoint, open_checkpoint
from quantd_server.errors import Finding, Severity
from quantd_server.host.description import Host
from quantd_server.methods.configs import GgufConfig, MethodConfig
from quantd_server.methods.gguf.file_types import FILE_TYPES
from quantd_server.planning.config_parsing.gguf import FILE_TYPE
from quantd_server.planning.config_parsing.parsed import ParsedConfig
from quantd_server.planning.config_parsing.parsing import parse_config
from quantd_server.planning.load_assessment import assess_loads
from quantd_server.planning.report import (
    CheckpointDescription,
    DtypeSummary,
    ExistingQuantization,
    InspectionReport,
    TensorInfo,
)
from quantd_server.planning.roots import Roots

MAX_COUNT = 1 << 31
"""Numbers from here on are no model's; a damaged or hostile header may hold any."""

FLOAT_TYPES = frozenset({"F64", "F32", "F16", "BF16"})


def inspect(
    uri: str,
    roots: Roots,
    host: Host,
    *,
    context_length: int | None = None,
    offset: int,
    page_size: int,
) -> InspectionReport:
    """The description of a checkpoint with the tensors [offset, offset + page_size) listed.

    ``context_length`` in tokens is what the loads on ``host`` are assessed for.

    Raises QuantdError when it is not there, not allowed, or damaged.
    """
    checkpoint = open_checkpoint(roots.source(uri))
    names = sorted(checkpoint.tensors)
    end = offset + page_size
    layout = _layout_of(checkpoint)
    description = describe(uri, checkpoint, layout)
    findings = [
        *_layout_findings(checkpoint, layout),
        *_context_findings(description, context_length),
    ]
    return InspectionReport(
        checkpoint=description,
        tensors=tuple(
            TensorInfo(
                name=name,
                dtype=entry.dtype,
                shape=entry.shape,
                size_bytes=entry.nbytes,
                file=entry.file,
            )
            for name in names[offset:end]
            for entry in (checkpoint.tensors[name],)
        ),
        next_offset=end if page_size and end < len(names) else None,
        findings=(*findings, *quantization_findings(checkpoint)),
        loads=assess_loads(description, host, context_length),
    )


def _layout_of(checkpoint: Checkpoint) -> ModelLayout | None:
    """What the tensors of a Hugging Face checkpoint are; None for a .gguf file."""
    if not isinstance(checkpoint, HuggingFaceCheckpoint):
        return None
    shapes = {name: entry.shape for name, entry in checkpoint.tensors.items()}
    return model_layout(checkpoint.config, shapes)


def _layout_findings(checkpoint: Checkpoint, layout: ModelLayout | None) -> Iterator[Finding]:
    if layout is None or isinstance(checkpoint, GgufCheckpoint):
        return
    for finding in layout_findings(checkpoint.config, layout):
        yield msgspec.structs.replace(finding, field="source_uri")
    experts = [
        place.name for place in layout.with_role(TensorRole.EXPERT, TensorRole.FUSED_EXPERTS)
    ]
    if experts:
        fused = sum(1 for _ in layout.with_role(TensorRole.FUSED_EXPERTS))
        yield Finding(
            severity=Severity.INFO,
            field="source_uri",
            reason="MIXTURE_OF_EXPERTS",
            message=f"{len(experts)} tensors hold expert weights, {fused} of them those of all "
            "experts of a block at once",
            remedy="look at the plan for what a method does with them",
            subjects=tuple(experts[:16]),
            subject_count=len(experts),
        )


def _context_findings(description: CheckpointDescription, asked: int | None) -> Iterator[Finding]:
    if asked is not None and 0 < description.context_length < asked:
        yield Finding(
            severity=Severity.WARNING,
            field="context_length",
            reason="CONTEXT_BEYOND_MODEL",
            message=f"the model was made for {description.context_length:,} tokens, not {asked:,}",
            remedy=f"ask for at most {description.context_length}",
        )


def existing_quantization(checkpoint: Checkpoint) -> ExistingQuantization | None:
    """The quantization that a checkpoint has already; None when its weights are plain floats."""
    if isinstance(checkpoint, HuggingFaceCheckpoint):
        config = checkpoint.quantization_config
        if config is None:
            return None
        parsed = _parsed(config)
        return ExistingQuantization(
            quant_method=parsed.quant_method or "unknown",
            method=parsed.method,
            config_json=json.dumps(config, sort_keys=True, separators=(",", ":")),
        )
    quantized = any(entry.dtype not in FLOAT_TYPES for entry in checkpoint.tensors.values())
    if not quantized:
        return None
    return ExistingQuantization(quant_method="gguf", method=_gguf_method(checkpoint))


def quantization_findings(checkpoint: Checkpoint) -> tuple[Finding, ...]:
    """What is odd about the `quantization_config` of a checkpoint.

    None of them is an ERROR: whether the configuration is one that quantd would accept does not
    decide what can be done with the checkpoint.
    """
    if not isinstance(checkpoint, HuggingFaceCheckpoint) or checkpoint.quantization_config is None:
        return ()
    return tuple(
        msgspec.structs.replace(finding, severity=Severity.WARNING, kind="precondition")
        if finding.severity is Severity.ERROR
        else finding
        for finding in _parsed(checkpoint.quantization_config).findings
    )


def _parsed(config: Mapping[str, Any]) -> ParsedConfig:
    return parse_config(json.dumps({"quantization_config": config}))


def _gguf_method(checkpoint: GgufCheckpoint) -> MethodConfig | None:
    """As far as the file says: its file type, if that is one of the spec."""
    written = checkpoint.metadata.get("general.file_type")
    names = {entry.id: name for name, entry in FILE_TYPES.items() if name in FILE_TYPE.names}
    name = names.get(written.value) if written and isinstance(written.value, int) else None
    return MethodConfig(gguf=GgufConfig(file_type=name)) if name else None


def describe(uri: str, checkpoint: Checkpoint, layout: ModelLayout | None) -> CheckpointDescription:
    """All that the headers say; ``layout`` is that of a Hugging Face checkpoint."""
    counts: Counter[str] = Counter()
    elements: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for entry in checkpoint.tensors.values():
        counts[entry.dtype] += 1
        elements[entry.dtype] += math.prod(entry.shape)
        sizes[entry.dtype] += entry.nbytes
    facts = (
        _gguf_facts(checkpoint)
        if isinstance(checkpoint, GgufCheckpoint)
        else _huggingface_facts(checkpoint, layout or model_layout(checkpoint.config, {}))
    )
    return CheckpointDescription(
        uri=uri,
        parameter_count=sum(elements.values()),
        size_bytes=sum(sizes.values()),
        file_count=len(checkpoint.files),
        tensor_count=len(checkpoint.tensors),
        dtypes=tuple(
            DtypeSummary(
                dtype=dtype,
                tensor_count=counts[dtype],
                element_count=elements[dtype],
                size_bytes=size,
            )
            for dtype, size in sizes.most_common()
        ),
        quantization=existing_quantization(checkpoint),
        **facts,
    )


def _huggingface_facts(checkpoint: HuggingFaceCheckpoint, layout: ModelLayout) -> dict[str, Any]:
    config = checkpoint.config
    text_config = config.get("text_config")
    text = text_config if isinstance(text_config, dict) else config
    hidden = _number(text, "hidden_size", "n_embd", "d_model")
    heads = _number(text, "num_attention_heads", "n_head")
    architectures = config.get("architectures")
    return {
        "format": "SAFETENSORS",
        "model_type": checkpoint.model_type,
        "architecture": str(architectures[0])
        if isinstance(architectures, list) and architectures
        else "",
        "tied_embeddings": layout.tied_embeddings,
        "block_count": layout.blocks,
        "hidden_size": hidden,
        "context_length": _number(text, "max_position_embeddings", "n_positions", "n_ctx"),
        "vocab_size": _number(text, "vocab_size"),
        "head_count": heads,
        "kv_head_count": _number(text, "num_key_value_heads") or heads,
        "head_dim": _number(text, "head_dim") or (hidden // heads if heads else 0),
        "tokenizer": _tokenizer_kind(checkpoint),
    }


def _tokenizer_kind(checkpoint: HuggingFaceCheckpoint) -> str | None:
    """Told from the names of the files; the large tokenizer.json is not read for it."""
    names = set(checkpoint.carried_files)
    if names & {"tokenizer.model", "spiece.model", "sentencepiece.bpe.model"}:
        return "SENTENCEPIECE"
    if "vocab.txt" in names and "merges.txt" not in names:
        return "WORDPIECE"
    if "merges.txt" in names:
        return "BPE"
    if "tokenizer.json" in names:
        return _tokenizer_json_kind(checkpoint)
    return None


_KINDS = {"WordPiece": "WORDPIECE", "Unigram": "SENTENCEPIECE"}
_MODEL_TAIL_BYTES = 1 << 16


def _tokenizer_json_kind(checkpoint: HuggingFaceCheckpoint) -> str:
    """From the head of the file's `model` object, found without parsing megabytes of vocabulary."""
    with open(checkpoint.directory / "tokenizer.json", "rb") as stream:
        data = stream.read(32 << 20)
    start = data.rfind(b'"model": {')
    start = data.rfind(b'"model":{') if start < 0 else start
    head = data[start : start + _MODEL_TAIL_BYTES] if start >= 0 else b""
    for name, kind in _KINDS.items():
        if f'"{name}"'.encode() in head[:200]:
            return kind
    if b'"BPE"' not in head[:200]:
        return "OTHER"
    # Both are BPE: one over bytes in disguise, one over text with bytes as its last resort.
    return "BPE" if b'"ByteLevel"' in data[:start] else "SENTENCEPIECE"


def _gguf_facts(checkpoint: GgufCheckpoint) -> dict[str, Any]:
    metadata = checkpoint.metadata
    arch = checkpoint.architecture

    def value_of(key: str) -> Any:
        """Of whatever type the file gave it; None where it has none."""
        found = metadata.get(key)
        return None if found is None else found.value

    def number(key: str) -> int:
        found = value_of(f"{arch}.{key}")
        if isinstance(found, list):  # one for each block
            return max(map(_count, found), default=0)
        return _count(found)

    heads = number("attention.head_count")
    hidden = number("embedding_length")
    tokens = value_of("tokenizer.ggml.tokens")
    model = value_of("tokenizer.ggml.model")
    kinds = {"gpt2": "BPE", "llama": "SENTENCEPIECE", "bert": "WORDPIECE", "t5": "SENTENCEPIECE"}
    return {
        "format": "GGUF",
        "model_type": arch,
        "architecture": "",
        "tied_embeddings": "output.weight" not in checkpoint.tensors,
        "block_count": number("block_count"),
        "hidden_size": hidden,
        "context_length": number("context_length"),
        "vocab_size": number("vocab_size") or (len(tokens) if isinstance(tokens, list) else 0),
        "head_count": heads,
        "kv_head_count": number("attention.head_count_kv") or heads,
        "head_dim": number("attention.key_length") or (hidden // heads if heads else 0),
        "tokenizer": None
        if model is None
        else kinds.get(model if isinstance(model, str) else "", "OTHER"),
    }


def _number(config: Mapping[str, Any], *keys: str) -> int:
    """The first of these keys that holds a number of things; 0 when none does."""
    return next((count for key in keys if (count := _count(config.get(key)))), 0)


def _count(value: Any) -> int:
    """``value`` if it can be a number of heads, blocks or tokens, else 0."""
    return value if type(value) is int and 0 <= value < MAX_COUNT else 0
