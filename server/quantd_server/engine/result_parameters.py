"""The parameters of a result that is being written, as its readers compute with them (worker only).

They are read back from the files: what is measured is what was written.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch

from quantd_server.checkpoint.output import Output
from quantd_server.methods.base import OutputPart, WorkPlan
from quantd_server.methods.blockwise import BlockwiseMethod

NUMPY_TYPES = {
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "F32": np.float32,
    "F16": np.float16,
}
TORCH_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


class ResultParameters:
    """A ``calibration.parameters.ParameterSource``; names are those of the source."""

    def __init__(
        self, work: WorkPlan, method: BlockwiseMethod, config: Any, output: Output
    ) -> None:
        self._tasks = {task.source.name: task for task in work.tasks if task.source and task.parts}
        self._method = method
        self._config = config
        self._output = output
        self._head: tuple[str, torch.Tensor] | None = None
        """The quantized parameter of which rows were read last."""

    @property
    def names(self) -> Collection[str]:
        return self._tasks.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tasks[name].shape

    def read(self, name: str) -> torch.Tensor:
        task = self._tasks[name]
        if task.action != "QUANTIZE":
            return self._stored(task.parts[0], 0, task.parts[0].nbytes).view(task.shape)
        contents = [
            np.frombuffer(self._bytes(part, 0, part.nbytes), NUMPY_TYPES[part.dtype])
            for part in task.parts
        ]
        weight = self._method.dequantize(self._config, task, contents)
        return weight.T.contiguous() if task.transform == "transpose" else weight

    def read_rows(self, name: str, begin: int, end: int) -> torch.Tensor:
        task = self._tasks[name]
        if task.action == "QUANTIZE":
            if self._head is None or self._head[0] != name:
                self._head = (name, self.read(name))
            return self._head[1][begin:end]
        row = task.parts[0].nbytes // task.shape[0]
        stored = self._stored(task.parts[0], begin * row, (end - begin) * row)
        return stored.view(-1, *task.shape[1:])

    def _stored(self, part: OutputPart, offset: int, size: int) -> torch.Tensor:
        return torch.frombuffer(self._bytes(part, offset, size), dtype=TORCH_TYPES[part.dtype])

    def _bytes(self, part: OutputPart, offset: int, size: int) -> bytearray:
        data = bytearray(size)
        with self._output.path(part.file).open("rb") as file:
            file.seek(part.offset + offset)
            if file.readinto(data) != size:
                raise OSError(f"{part.file} is shorter than planned")
        return data
