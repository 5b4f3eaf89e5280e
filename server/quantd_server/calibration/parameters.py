"""Where a model's parameters come from (worker only: imports torch)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import torch

from quantd_server.checkpoint.huggingface import HuggingFaceCheckpoint
from quantd_server.checkpoint.reading import TensorReader
from quantd_server.errors import CheckpointError, quoted

_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class ParameterSource(Protocol):
    """Parameters by their names in the checkpoint, read when they are needed."""

    @property
    def names(self) -> Collection[str]:
        """Of everything that can be read."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Row-major, as stored."""

    def read(self, name: str) -> torch.Tensor:
        """The parameter in any floating dtype, on the CPU; the caller may keep it."""

    def read_rows(self, name: str, begin: int, end: int) -> torch.Tensor:
        """Its rows ``begin`` to ``end`` (exclusive): embeddings and heads are read in pieces."""


class CheckpointParameters:
    """The unquantized parameters of a checkpoint, in the dtypes that it stores."""

    def __init__(self, checkpoint: HuggingFaceCheckpoint, reader: TensorReader) -> None:
        self._tensors = checkpoint.tensors
        self._reader = reader

    @property
    def names(self) -> Collection[str]:
        return self._tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def read(self, name: str) -> torch.Tensor:
        """Raises CheckpointError: PARAMETER_NOT_FLOAT and those of ``TensorReader``."""
        shape = self.shape(name)
        return self._read(name, 0, self._tensors[name].nbytes).view(shape)

    def read_rows(self, name: str, begin: int, end: int) -> torch.Tensor:
        """Raises as ``read``."""
        rows, *rest = self.shape(name)
        row_bytes = self._tensors[name].nbytes // rows
        return self._read(name, begin * row_bytes, (end - begin) * row_bytes).view(-1, *rest)

    def _read(self, name: str, offset: int, length: int) -> torch.Tensor:
        entry = self._tensors[name]
        dtype = _TYPES.get(entry.dtype)
        if dtype is None:
            raise CheckpointError(
                reason="PARAMETER_NOT_FLOAT",
                message=f"{quoted(name)} is stored as {entry.dtype}; a calibrated method reads "
                f"{', '.join(_TYPES)}",
                remedy="start from the unquantized checkpoint",
            )
        data = torch.empty(length // dtype.itemsize, dtype=dtype)
        if length:
            self._reader.read_into(entry, offset, data.view(torch.uint8).numpy().data)
        return data
