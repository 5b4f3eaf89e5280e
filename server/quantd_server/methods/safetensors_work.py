"""Work plans of the methods that write a Hugging Face directory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from quantd_server.checkpoint.huggingface import HuggingFaceCheckpoint
from quantd_server.checkpoint.model_config import published_config
from quantd_server.checkpoint.opening import Checkpoint
from quantd_server.checkpoint.safetensors_header import TensorEntry
from quantd_server.checkpoint.safetensors_layout import (
    INDEX_FILE,
    OutputTensor,
    SafetensorsLayout,
    plan_files,
)
from quantd_server.errors import Finding, QuantdError, Severity, quoted
from quantd_server.methods.base import (
    Action,
    OutputPart,
    TensorTask,
    Transform,
    WeightFile,
    WorkOptions,
    WorkPlan,
    subjects_of,
)


class PlannedTensor(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor of the source and the tensors that are stored for it (none if it is dropped)."""

    entry: TensorEntry
    stored: tuple[OutputTensor, ...]
    """The main tensor first."""
    target_type: str
    action: Action
    reason: str
    transform: Transform = "copy"
    block: int | None = None
    """As ``TensorTask.block``."""
    held_bytes: int = 0


def kept_tensor(entry: TensorEntry, reason: str) -> PlannedTensor:
    """A tensor that is stored as it is."""
    stored = OutputTensor(name=entry.name, dtype=entry.dtype, shape=entry.shape)
    return PlannedTensor(
        entry=entry, stored=(stored,), target_type=entry.dtype, action="KEEP", reason=reason
    )


def rescaled_tensor(entry: TensorEntry, reason: str, block: int) -> PlannedTensor:
    """A tensor that keeps its type and shape and gets other values."""
    stored = OutputTensor(name=entry.name, dtype=entry.dtype, shape=entry.shape)
    return PlannedTensor(
        entry=entry,
        stored=(stored,),
        target_type=entry.dtype,
        action="RESCALE",
        reason=reason,
        block=block,
    )


def dropped_tensor(entry: TensorEntry, reason: str) -> PlannedTensor:
    """A tensor that is left out."""
    return PlannedTensor(entry=entry, stored=(), target_type="", action="DROP", reason=reason)


def require_huggingface(checkpoint: Checkpoint, method: str) -> HuggingFaceCheckpoint:
    """The checkpoint, if it is a Hugging Face directory. Raises QuantdError SOURCE_FORMAT."""
    if isinstance(checkpoint, HuggingFaceCheckpoint):
        return checkpoint
    raise QuantdError(
        reason="SOURCE_FORMAT",
        field="spec.source_uri",
        message=f"{method} quantizes a Hugging Face directory; the source is a .gguf file",
        remedy="name the directory with config.json and the safetensors files, or choose gguf",
    )


def safetensors_work(
    tensors: Iterable[PlannedTensor],
    checkpoint: HuggingFaceCheckpoint,
    quantization_config: Mapping[str, Any],
    findings: Iterable[Finding],
    options: WorkOptions,
    *,
    tuning_bytes: int = 0,
) -> WorkPlan:
    """The work plan: files, places, config.json and what is carried over.

    Without tasks if two tensors would have the same name; a finding says so. ``tuning_bytes``: as
    in ``WorkPlan``.
    """
    tensors = list(tensors)
    stored = [stored for tensor in tensors for stored in tensor.stored]
    taken = tuple(_taken_names(stored))
    if taken:
        return WorkPlan(tasks=(), files=(), findings=(*findings, *taken))
    layout = plan_files(stored, options.max_shard_size)
    config = published_config(checkpoint.config, dict(quantization_config))
    texts = {"config.json": json.dumps(config, indent=2, ensure_ascii=False) + "\n"}
    if layout.index is not None:
        texts[INDEX_FILE] = layout.index
    places = _places(layout)
    return WorkPlan(
        tasks=tuple(_task(tensor, places) for tensor in tensors),
        files=tuple(
            WeightFile(name=file.name, header=file.header, size=file.size) for file in layout.files
        ),
        texts=texts,
        carried=checkpoint.carried_files,
        findings=tuple(findings),
        tuning_bytes=tuning_bytes,
    )


def _taken_names(stored: Iterable[OutputTensor]) -> Iterator[Finding]:
    """A source may hold a tensor whose name is that of another's scales."""
    counts = Counter(tensor.name for tensor in stored)
    taken = [name for name, count in counts.items() if count > 1]
    if taken:
        subjects, count = subjects_of(taken)
        yield Finding(
            severity=Severity.ERROR,
            field="spec.source_uri",
            reason="TENSOR_NAME_TAKEN",
            message=f"the source holds {count} tensors with names of ones that belong to quantized "
            f"weights: {', '.join(map(quoted, subjects[:3]))}",
            remedy="name the original checkpoint, which is not quantized",
            kind="precondition",
            subjects=subjects,
            subject_count=count,
        )


def _places(layout: SafetensorsLayout) -> dict[str, tuple[str, int, int]]:
    """File, offset and bytes by tensor name."""
    return {
        name: (file.name, place.offset, place.nbytes)
        for file in layout.files
        for name, place in file.entries.items()
    }


def _task(tensor: PlannedTensor, places: Mapping[str, tuple[str, int, int]]) -> TensorTask:
    return TensorTask(
        source=tensor.entry,
        target_name=tensor.stored[0].name if tensor.stored else "",
        target_type=tensor.target_type,
        shape=tensor.entry.shape,
        action=tensor.action,
        reason=tensor.reason,
        parts=tuple(_part(stored, places) for stored in tensor.stored),
        transform=tensor.transform,
        block=tensor.block,
        held_bytes=tensor.held_bytes,
    )


def _part(stored: OutputTensor, places: Mapping[str, tuple[str, int, int]]) -> OutputPart:
    file, offset, nbytes = places[stored.name]
    return OutputPart(
        name=stored.name,
        dtype=stored.dtype,
        shape=stored.shape,
        file=file,
        offset=offset,
        nbytes=nbytes,
        variable_length=stored.variable_length,
    )
