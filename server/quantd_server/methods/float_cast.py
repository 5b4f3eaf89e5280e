"""Storing a tensor in another float type: the part of a file that is not quantized."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantd_server.methods.base import ChunkResult, TensorTask

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


class FloatCast:
    """Rounds to nearest, ties to even; see ``methods.base.TensorQuantizer``."""

    granularity = 1

    def __init__(self, task: TensorTask) -> None:
        self._dtype = task.parts[0].dtype

    def quantize(self, first: int, values: npt.NDArray[np.float32]) -> ChunkResult:
        import numpy as np

        from quantd_server.kernels.dtypes import from_float32, to_float32
        from quantd_server.kernels.gguf.squared_difference import add_squared_differences

        stored = from_float32(values, self._dtype)  # type: ignore[arg-type]
        error = 0.0
        if self._dtype != "F32":
            read_back = np.empty_like(values)
            to_float32(stored, self._dtype, read_back)  # type: ignore[arg-type]
            error = float(add_squared_differences(values, read_back))
        return ChunkResult(
            writes=[(0, first * ITEM_BYTES[self._dtype], stored)], squared_error=error
        )

    def finish(self) -> ChunkResult:
        return ChunkResult(writes=[])
