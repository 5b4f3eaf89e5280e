"""An importance matrix in use: which tensor it weighs, and whether it fits."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from quantd_server.checkpoint.imatrix import FIELD, read_importance_matrix
from quantd_server.errors import Finding, Severity
from quantd_server.methods.base import TensorTask, WorkOptions, subjects_of
from quantd_server.methods.configs import GgufConfig
from quantd_server.methods.gguf.description import ConvertedTensor, MetadataEntry, string, uint32
from quantd_server.methods.gguf.file_types import TypeChoice
from quantd_server.methods.gguf.mixtures import NEEDS_IMATRIX

UNWEIGHED = ("token_embd.weight", "per_layer_token_embd.weight", "output.weight")
"""Tensors that llama-imatrix does not measure unless it is asked to."""


class Importance:
    """The values of one file."""

    def __init__(self, file: str, entries: dict[str, array[float]]) -> None:
        self._file = file
        self._entries = entries

    @classmethod
    def load(cls, config: GgufConfig, options: WorkOptions) -> Importance | None:
        """The matrix that ``config`` names; None when it names none, or one that may not be read.

        Raises QuantdError when it is damaged.
        """
        path = options.paths.get(config.imatrix_uri or "")
        if path is None:
            return None
        return cls(Path(path).name, read_importance_matrix(Path(path)))

    def weigh(self, task: TensorTask) -> TensorTask:
        """The task with the importance of its columns, if it is quantized and there is one."""
        values = self._entries.get(task.target_name)
        if values is None or task.action not in ("QUANTIZE", "FALLBACK"):
            return task
        return msgspec.structs.replace(task, importance=values.tobytes())

    def metadata(self) -> Iterator[MetadataEntry]:
        """What llama-quantize notes in the header."""
        yield string("quantize.imatrix.file", self._file)
        yield uint32("quantize.imatrix.entries_count", len(self._entries))

    def findings(
        self, tensors: Sequence[ConvertedTensor], choices: Sequence[TypeChoice]
    ) -> Iterator[Finding]:
        """Tensors for which the matrix has no values, or a wrong number of them."""
        unfit, missing, required = [], [], []
        for tensor, choice in zip(tensors, choices, strict=True):
            values = self._entries.get(tensor.name)
            if values is not None and len(values) != _expected(tensor.shape):
                unfit.append(tensor.name)
            elif values is None and choice.ggml_type in NEEDS_IMATRIX:
                required.append(tensor.name)
            elif values is None and _is_weighed(tensor, choice):
                missing.append(tensor.name)
        yield from _finding(
            unfit, Severity.ERROR, "IMATRIX_SIZE_MISMATCH", "have another size in the matrix"
        )
        yield from _finding(
            required, Severity.ERROR, "GGUF_IMATRIX_REQUIRED", "need values and have none"
        )
        yield from _finding(
            missing, Severity.WARNING, "IMATRIX_INCOMPLETE", "have no values and are not weighed"
        )


def _expected(shape: tuple[int, ...]) -> int:
    """Columns of all matrices of a tensor."""
    matrices = 1
    for dimension in shape[:-2]:
        matrices *= dimension
    return matrices * shape[-1]


def _is_weighed(tensor: ConvertedTensor, choice: TypeChoice) -> bool:
    floats = ("F32", "F16", "BF16")
    return choice.ggml_type not in floats and tensor.name not in UNWEIGHED


def _finding(names: list[str], severity: Severity, reason: str, what: str) -> Iterator[Finding]:
    if names:
        subjects, count = subjects_of(names)
        yield Finding(
            severity=severity,
            field=FIELD,
            reason=reason,
            message=f"{count} tensors {what}, e.g. {names[0]}",
            remedy="make the importance matrix from this very model with llama-imatrix",
            kind="precondition",
            subjects=subjects,
            subject_count=count,
        )
