"""The method `gguf`: from a source to a work plan, and from a task to its kernels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from quantd_server.checkpoint.opening import Checkpoint
from quantd_server.checkpoint.safetensors_header import TensorEntry
from quantd_server.errors import Finding, Severity
from quantd_server.kernels.gguf import TYPES
from quantd_server.methods.base import (
    Action,
    ChunkResult,
    OutputPart,
    TensorQuantizer,
    TensorTask,
    WeightFile,
    WorkOptions,
    WorkPlan,
    subjects_of,
)
from quantd_server.methods.configs import GgufConfig
from quantd_server.methods.float_cast import FloatCast

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from quantd_server.methods.gguf.description import ConvertedTensor
    from quantd_server.methods.gguf.file_types import TypeChoice, TypeSelection
    from quantd_server.methods.gguf.source import SourceDescription

DEFAULT_FILE_TYPE = "Q4_K_M"
FLOAT_TYPES = ("F32", "F16", "BF16")


class Gguf:
    """See ``methods.base.Method``."""

    name = "gguf"
    devices = ("CPU",)
    single_file = True
    calibrated = False

    def resolve(self, config: GgufConfig) -> GgufConfig:
        return msgspec.structs.replace(
            config,
            file_type=config.file_type or DEFAULT_FILE_TYPE,
            pure=bool(config.pure),
        )

    def file_uris(self, config: GgufConfig) -> dict[str, str]:
        return {"spec.method.gguf.imatrix_uri": config.imatrix_uri} if config.imatrix_uri else {}

    def prepare(self, config: GgufConfig, checkpoint: Checkpoint, options: WorkOptions) -> WorkPlan:
        from quantd_server.methods.gguf.file_types import FILE_TYPES
        from quantd_server.methods.gguf.importance import Importance
        from quantd_server.methods.gguf.metadata_writer import TypedTensor, build_header
        from quantd_server.methods.gguf.source import describe_source

        source = describe_source(checkpoint)
        findings = list(source.findings)
        if _has_error(findings):
            return WorkPlan(tasks=(), files=(), findings=tuple(findings))
        importance = Importance.load(config, options)
        selection = _choose(config, source, has_imatrix=importance is not None)
        findings += selection.findings
        if importance is not None:
            findings += importance.findings(source.tensors, selection.choices)
        if _has_error(findings):
            return WorkPlan(tasks=(), files=(), findings=tuple(findings))
        layout = build_header(
            source.gguf_arch,
            (*source.metadata, *(importance.metadata() if importance else ())),
            [
                TypedTensor(name=tensor.name, shape=tensor.shape, ggml_type=choice.ggml_type)
                for tensor, choice in zip(source.tensors, selection.choices, strict=True)
            ],
            FILE_TYPES[str(config.file_type)].id,
        )
        tasks = [
            _task(tensor, choice, source.entries, layout.places[tensor.name], options.output_name)
            for tensor, choice in zip(source.tensors, selection.choices, strict=True)
        ]
        if importance is not None:
            tasks = [importance.weigh(task) for task in tasks]
        tasks += [
            _dropped(source.entries[skipped.name], skipped.reason) for skipped in source.skipped
        ]
        return WorkPlan(
            tasks=tuple(tasks),
            files=(
                WeightFile(name=options.output_name, header=layout.header, size=layout.file_size),
            ),
            findings=(*findings, *_fallback_findings(config, tasks)),
        )

    def quantizer(self, config: GgufConfig, task: TensorTask, device: str) -> TensorQuantizer:
        if task.target_type in FLOAT_TYPES:
            return FloatCast(task)
        return BlockQuantizer(task)


def _has_error(findings: Iterable[Finding]) -> bool:
    return any(finding.severity is Severity.ERROR for finding in findings)


def _choose(config: GgufConfig, source: SourceDescription, *, has_imatrix: bool) -> TypeSelection:
    from quantd_server.methods.gguf.file_types import Override, TensorToType, choose_types

    assert source.facts is not None
    return choose_types(
        [
            TensorToType(
                name=tensor.name,
                shape=tensor.shape,
                source_type="F32" if tensor.keep_f32 else _stored_float(tensor.source_dtype),
            )
            for tensor in source.tensors
        ],
        source.facts,
        str(config.file_type),
        overrides=[Override(pattern=rule.pattern, type=rule.type) for rule in config.tensor_types],
        output_type=config.output_tensor_type,
        token_embedding_type=config.token_embedding_type,
        pure=bool(config.pure),
        has_imatrix=has_imatrix,
    )


def _stored_float(source_dtype: str) -> str:
    """The type of an unquantized tensor in the file."""
    return source_dtype if source_dtype in FLOAT_TYPES else "F32"


def _task(
    tensor: ConvertedTensor,
    choice: TypeChoice,
    entries: Mapping[str, TensorEntry],
    place: tuple[int, int],
    file: str,
) -> TensorTask:
    offset, nbytes = place
    source = entries[tensor.source] if tensor.source is not None else None
    return TensorTask(
        source=source,
        target_name=tensor.name,
        target_type=choice.ggml_type,
        shape=tensor.shape,
        action=_action(tensor, choice),
        reason=choice.reason,
        parts=(
            OutputPart(
                name=tensor.name,
                dtype=choice.ggml_type,
                shape=tensor.shape,
                file=file,
                offset=offset,
                nbytes=nbytes,
            ),
        ),
        transform=tensor.transform,
        head_count=tensor.head_count or 0,
        values=tensor.values or (),
    )


def _action(tensor: ConvertedTensor, choice: TypeChoice) -> Action:
    if tensor.source is None:
        return "GENERATE"
    if choice.ggml_type not in FLOAT_TYPES:
        return "FALLBACK" if choice.is_fallback else "QUANTIZE"
    unchanged = choice.ggml_type == tensor.source_dtype and tensor.transform == "copy"
    return "KEEP" if unchanged else "CONVERT"


def _dropped(entry: TensorEntry, reason: str) -> TensorTask:
    return TensorTask(
        source=entry,
        target_name="",
        target_type="",
        shape=entry.shape,
        action="DROP",
        reason=reason,
    )


def _fallback_findings(config: GgufConfig, tasks: Iterable[TensorTask]) -> Iterator[Finding]:
    """Says up front when the file will not be what its type's name promises."""
    fallen = [task.target_name for task in tasks if task.action == "FALLBACK"]
    if fallen:
        subjects, count = subjects_of(fallen)
        yield Finding(
            severity=Severity.WARNING,
            field="spec.method.gguf.file_type",
            reason="GGUF_TYPE_FALLBACK",
            message=f"{count} tensors get another type than {config.file_type} gives them, "
            "because the type's block does not divide their rows; the plan lists them",
            remedy="nothing has to change; a type with blocks of 32 (Q8_0, Q5_1, Q4_0, IQ4_NL) "
            "fits all rows that are multiples of 32",
            kind="precondition",
            subjects=subjects,
            subject_count=count,
        )


class BlockQuantizer:
    """Quantizes the blocks of one tensor; see ``methods.base.TensorQuantizer``."""

    def __init__(self, task: TensorTask) -> None:
        self._type = task.target_type
        self._block = TYPES[task.target_type]
        self._columns = task.shape[-1]
        self._rows_per_matrix = task.shape[-2] if len(task.shape) > 1 else 1
        self._importance = task.importance
        # Blocks never cross rows, and without importance they do not know of them either.
        self.granularity = self._columns if self._importance else self._block.elements

    def quantize(self, first: int, values: npt.NDArray[np.float32]) -> ChunkResult:
        import numpy as np

        from quantd_server.kernels.gguf import quantize, squared_error

        rows = values.reshape(-1, self.granularity)
        blocks = np.empty((len(rows), self._block.row_bytes(self.granularity)), np.uint8)
        if not self._importance:
            # One long row: the fewest and the longest calls.
            quantize(rows.reshape(1, -1), self._type, blocks.reshape(1, -1))
        else:
            self._quantize_weighed(first // self._columns, rows, blocks)
        return ChunkResult(
            writes=[(0, self._block.row_bytes(first), blocks)],
            squared_error=squared_error(rows, blocks, self._type),
        )

    def _quantize_weighed(
        self, first_row: int, rows: npt.NDArray[np.float32], blocks: npt.NDArray[np.uint8]
    ) -> None:
        """Rows by matrix (expert), each with the importance of its columns."""
        import numpy as np

        from quantd_server.kernels.gguf import quantize

        importance = np.frombuffer(self._importance, "<f4").reshape(-1, self._columns)
        done = 0
        while done < len(rows):
            matrix, row = divmod(first_row + done, self._rows_per_matrix)
            end = min(len(rows), done + self._rows_per_matrix - row)
            quantize(rows[done:end], self._type, blocks[done:end], importance[matrix])
            done = end

    def finish(self) -> ChunkResult:
        return ChunkResult(writes=[])
