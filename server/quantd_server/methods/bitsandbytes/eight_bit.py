"""LLM.int8 (Dettmers et al. 2022, arXiv:2208.07339): int8 rows with a float32 scale each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantd_server.checkpoint.opening import Checkpoint
from quantd_server.checkpoint.safetensors_layout import OutputTensor
from quantd_server.errors import QuantdError, quoted
from quantd_server.methods.base import ChunkResult, TensorTask, WorkOptions, WorkPlan
from quantd_server.methods.bitsandbytes.config_json import eight_bit_json
from quantd_server.methods.bitsandbytes.device_kernels import kernels
from quantd_server.methods.bitsandbytes.selection import Selected, select
from quantd_server.methods.configs import Bitsandbytes8BitConfig, filled
from quantd_server.methods.safetensors_work import (
    PlannedTensor,
    dropped_tensor,
    kept_tensor,
    require_huggingface,
    safetensors_work,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

DEFAULTS = Bitsandbytes8BitConfig(
    llm_int8_threshold=6.0,
    llm_int8_enable_fp32_cpu_offload=False,
    llm_int8_has_fp16_weight=False,
)

FLOAT16_MAX = 65504.0


class Bitsandbytes8Bit:
    """The method `bitsandbytes_8bit`; see ``methods.base.Method``."""

    name = "bitsandbytes_8bit"
    devices = ("CPU", "CUDA")
    single_file = False
    calibrated = False

    def resolve(self, config: Bitsandbytes8BitConfig) -> Bitsandbytes8BitConfig:
        return filled(config, DEFAULTS)

    def file_uris(self, config: Bitsandbytes8BitConfig) -> dict[str, str]:
        return {}

    def prepare(
        self, config: Bitsandbytes8BitConfig, checkpoint: Checkpoint, options: WorkOptions
    ) -> WorkPlan:
        source = require_huggingface(checkpoint, self.name)
        selection = select(source, config.llm_int8_skip_modules, f"spec.method.{self.name}")
        return safetensors_work(
            map(_planned, selection.tensors),
            source,
            eight_bit_json(config),
            selection.findings,
            options,
        )

    def quantizer(
        self, config: Bitsandbytes8BitConfig, task: TensorTask, device: str
    ) -> EightBitQuantizer:
        return EightBitQuantizer(task, device)


def _planned(tensor: Selected) -> PlannedTensor:
    entry = tensor.entry
    if tensor.action == "KEEP":
        return kept_tensor(entry, tensor.reason)
    if tensor.action == "DROP":
        return dropped_tensor(entry, tensor.reason)
    rows = tensor.linear_shape[0]
    module = entry.name.removesuffix(".weight")
    stored = (
        OutputTensor(name=entry.name, dtype="I8", shape=tensor.linear_shape, group=module),
        OutputTensor(name=f"{module}.SCB", dtype="F32", shape=(rows,), group=module),
        OutputTensor(name=f"{module}.weight_format", dtype="U8", shape=(), group=module),
    )
    return PlannedTensor(
        entry=entry,
        stored=stored,
        target_type="INT8",
        action="QUANTIZE",
        reason=tensor.reason,
        transform="transpose" if tensor.transposed else "copy",
    )


class EightBitQuantizer:
    """Quantizes the rows of one weight; see ``methods.base.TensorQuantizer``."""

    def __init__(self, task: TensorTask, device: str) -> None:
        self._name = task.source.name if task.source else task.target_name
        self._columns = task.target_shape[1]
        self._kernels = kernels(device)
        self.granularity = self._columns

    def quantize(self, first: int, values: npt.NDArray[np.float32]) -> ChunkResult:
        import numpy as np

        rows = values.reshape(-1, self._columns)
        # bitsandbytes casts to float16 first.
        if values.size and np.abs(values).max() > FLOAT16_MAX:
            raise QuantdError(
                reason="WEIGHTS_OUT_OF_RANGE",
                field="spec.source_uri",
                kind="precondition",
                message=f"tensor {quoted(self._name)} has weights beyond {FLOAT16_MAX:g}, the "
                "largest float16; 8-bit quantization takes weights in float16",
                remedy="skip that module, or choose another method",
            )
        codes = np.empty(rows.shape, np.int8)
        scale = np.empty(len(rows), np.float32)
        self._kernels.quantize_8bit_rows(rows, codes, scale)
        row = first // self._columns
        return ChunkResult(
            writes=[(0, first, codes), (1, 4 * row, scale)],
            squared_error=self._kernels.squared_error_8bit(rows, codes, scale),
        )

    def finish(self) -> ChunkResult:
        return ChunkResult(
            writes=[(2, 0, b"\0")]
        )  # weight_format 0: row-major, the only one that readers accept
