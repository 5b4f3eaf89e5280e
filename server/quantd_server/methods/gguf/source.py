"""A source of either kind in llama.cpp's words: what the .gguf file is made of."""

from __future__ import annotations

import msgspec

from quantd_server.checkpoint.huggingface import HuggingFaceCheckpoint
from quantd_server.checkpoint.opening import Checkpoint, GgufCheckpoint
from quantd_server.checkpoint.safetensors_header import TensorEntry
from quantd_server.errors import Finding, Severity
from quantd_server.methods.gguf.architectures import describe
from quantd_server.methods.gguf.description import (
    ConvertedTensor,
    MetadataEntry,
    SkippedTensor,
)
from quantd_server.methods.gguf.file_types import ModelFacts
from quantd_server.methods.gguf.metadata_writer import metadata_of_source
from quantd_server.methods.gguf.tokenizer import describe_tokenizer
from quantd_server.methods.gguf.tokenizer_files import read_tokenizer_files

EMBEDDING = "token_embd.weight"


class SourceDescription(msgspec.Struct, frozen=True, kw_only=True):
    """The file to be written, but for the types of its tensors; usable without ERROR findings."""

    gguf_arch: str
    metadata: tuple[MetadataEntry, ...] = ()
    tensors: tuple[ConvertedTensor, ...] = ()
    """In file order."""
    entries: dict[str, TensorEntry] = {}
    """The tensors of the source by name."""
    skipped: tuple[SkippedTensor, ...] = ()
    facts: ModelFacts | None = None
    findings: tuple[Finding, ...] = ()


def describe_source(checkpoint: Checkpoint) -> SourceDescription:
    """The description of ``checkpoint``; reads the tokenizer files of a Hugging Face directory."""
    if isinstance(checkpoint, GgufCheckpoint):
        return _from_gguf(checkpoint)
    return _from_huggingface(checkpoint)


def _from_huggingface(checkpoint: HuggingFaceCheckpoint) -> SourceDescription:
    shapes = {name: (entry.dtype, entry.shape) for name, entry in checkpoint.tensors.items()}
    model = describe(checkpoint.config, shapes)
    files, findings = read_tokenizer_files(checkpoint.directory)
    findings = [*model.findings, *findings]
    metadata = list(model.metadata)
    embedding = next((tensor for tensor in model.tensors if tensor.name == EMBEDDING), None)
    if embedding is not None:
        tokenizer = describe_tokenizer(files, checkpoint.config, embedding.shape[0])
        metadata += tokenizer.metadata
        findings += tokenizer.findings
    return SourceDescription(
        gguf_arch=model.gguf_arch,
        metadata=tuple(metadata),
        tensors=model.tensors,
        entries=checkpoint.tensors,
        skipped=model.skipped,
        facts=ModelFacts(
            gguf_arch=model.gguf_arch,
            blocks=model.scalar("block_count"),
            heads=model.scalar("attention.head_count"),
            kv_heads=model.scalar("attention.head_count_kv"),
        ),
        findings=tuple(findings),
    )


def _from_gguf(checkpoint: GgufCheckpoint) -> SourceDescription:
    def scalar(key: str) -> int:
        found = checkpoint.metadata.get(f"{checkpoint.architecture}.{key}")
        value = found.value if found is not None else 0
        # llama.cpp takes the first block's figure where they differ.
        value = next((item for item in value if item), 0) if isinstance(value, list) else value
        return value if isinstance(value, int) else 0

    entries = {
        name: TensorEntry(
            name=name,
            dtype=entry.ggml_type,
            shape=entry.shape,
            offset=entry.offset,
            nbytes=entry.nbytes,
            file=entry.file,
        )
        for name, entry in checkpoint.tensors.items()
    }
    return SourceDescription(
        gguf_arch=checkpoint.architecture,
        metadata=tuple(metadata_of_source(checkpoint.metadata)),
        tensors=tuple(
            ConvertedTensor(name=name, source=name, source_dtype=entry.dtype, shape=entry.shape)
            for name, entry in entries.items()
        ),
        entries=entries,
        facts=ModelFacts(
            gguf_arch=checkpoint.architecture,
            blocks=scalar("block_count"),
            heads=scalar("attention.head_count"),
            kv_heads=scalar("attention.head_count_kv"),
            experts=scalar("expert_count"),
        ),
        findings=tuple(_unsupported_dtypes(entries)),
    )


def _unsupported_dtypes(entries: dict[str, TensorEntry]) -> list[Finding]:
    odd = sorted(
        name for name, entry in entries.items() if entry.dtype not in ("F32", "F16", "BF16")
    )
    if not odd:
        return []
    return [
        Finding(
            severity=Severity.ERROR,
            field="spec.source_uri",
            reason="GGUF_SOURCE_DTYPE_UNSUPPORTED",
            message=f"{len(odd)} tensors are neither F32, F16 nor BF16, e.g. {odd[0]!r}",
            remedy="name the unquantized .gguf file of this model",
            kind="precondition",
            subjects=tuple(odd[:16]),
            subject_count=len(odd),
        )
    ]
