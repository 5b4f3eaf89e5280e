"""NF4 and FP4 (Dettmers et al. 2023, arXiv:2305.14314): 4-bit blocks with a scale each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from quantd_server.checkpoint.opening import Checkpoint
from quantd_server.checkpoint.safetensors_layout import OutputTensor
from quantd_server.errors import Finding, Severity
from quantd_server.kernels.bitsandbytes.quant_state import (
    pack_quant_state,
    packed_shape,
    quant_state_key,
)
from quantd_server.kernels.bitsandbytes.tables import (
    DYNAMIC_MAP,
    NESTED_BLOCK_SIZE,
    QuantType,
    code_table,
)
from quantd_server.methods.base import (
    ChunkResult,
    TensorTask,
    WorkOptions,
    WorkPlan,
    subjects_of,
)
from quantd_server.methods.bitsandbytes.config_json import four_bit_json
from quantd_server.methods.bitsandbytes.device_kernels import kernels
from quantd_server.methods.bitsandbytes.selection import Selected, select
from quantd_server.methods.configs import Bitsandbytes4BitConfig, filled
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

DEFAULTS = Bitsandbytes4BitConfig(
    bnb_4bit_quant_type="FP4",
    bnb_4bit_compute_dtype="FLOAT32",
    bnb_4bit_use_double_quant=False,
    bnb_4bit_quant_storage="UINT8",
    blocksize=64,
    llm_int8_enable_fp32_cpu_offload=False,
)

STORAGE_DTYPES = {
    "UINT8": "U8",
    "INT8": "I8",
    "FLOAT16": "F16",
    "BFLOAT16": "BF16",
    "FLOAT32": "F32",
    "FLOAT64": "F64",
}
"""Name in safetensors of a `bnb_4bit_quant_storage`."""

TORCH_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Bitsandbytes4Bit:
    """The method `bitsandbytes_4bit`; see ``methods.base.Method``."""

    name = "bitsandbytes_4bit"
    devices = ("CPU", "CUDA")
    single_file = False
    calibrated = False

    def resolve(self, config: Bitsandbytes4BitConfig) -> Bitsandbytes4BitConfig:
        return filled(config, DEFAULTS)

    def file_uris(self, config: Bitsandbytes4BitConfig) -> dict[str, str]:
        return {}

    def prepare(
        self, config: Bitsandbytes4BitConfig, checkpoint: Checkpoint, options: WorkOptions
    ) -> WorkPlan:
        source = require_huggingface(checkpoint, self.name)
        field = f"spec.method.{self.name}"
        selection = select(source, config.llm_int8_skip_modules, field)
        unfit = [
            tensor.entry.name
            for tensor in selection.tensors
            if tensor.action == "QUANTIZE" and _stored_shape(tensor, config) is None
        ]
        return safetensors_work(
            (_planned(tensor, config) for tensor in selection.tensors),
            source,
            four_bit_json(config),
            (
                *selection.findings,
                *_unfit_findings(unfit, config, field),
                *_row_findings(selection.tensors, config, field),
            ),
            options,
        )

    def quantizer(
        self, config: Bitsandbytes4BitConfig, task: TensorTask, device: str
    ) -> FourBitQuantizer:
        return FourBitQuantizer(config, task, device)


def _stored_shape(tensor: Selected, config: Bitsandbytes4BitConfig) -> tuple[int, int] | None:
    """Shape of the packed weight; None when the storage type cannot hold it."""
    elements = math.prod(tensor.entry.shape)
    try:
        return packed_shape(elements, str(config.bnb_4bit_quant_storage).lower())
    except ValueError:
        return None


def _unfit_findings(
    names: list[str], config: Bitsandbytes4BitConfig, field: str
) -> Iterator[Finding]:
    if names:
        subjects, count = subjects_of(names)
        yield Finding(
            severity=Severity.ERROR,
            field=f"{field}.bnb_4bit_quant_storage",
            reason="QUANT_STORAGE_UNFIT",
            message=f"the codes of {count} weights do not fill whole items of "
            f"{config.bnb_4bit_quant_storage}: {', '.join(subjects)}",
            remedy="use UINT8",
            subjects=subjects,
            subject_count=count,
        )


def _row_findings(
    tensors: Iterable[Selected], config: Bitsandbytes4BitConfig, field: str
) -> Iterator[Finding]:
    """Blocks are counted along the flattened weight; not every reader's kernel expects that."""
    blocksize = config.blocksize or 64
    odd = [
        tensor.entry.name
        for tensor in tensors
        if tensor.action == "QUANTIZE" and tensor.linear_shape[1] % blocksize
    ]
    if odd:
        subjects, count = subjects_of(odd)
        yield Finding(
            severity=Severity.WARNING,
            field=f"{field}.blocksize",
            reason="BLOCKS_CROSS_ROWS",
            message=f"the rows of {count} weights are no multiple of {blocksize}, so blocks cross "
            f"rows, which bitsandbytes 0.50 reads wrongly on a CPU: {', '.join(subjects[:3])}",
            remedy="choose a blocksize that divides the rows, or load the result on a GPU",
            kind="precondition",
            subjects=subjects,
            subject_count=count,
        )


def _planned(tensor: Selected, config: Bitsandbytes4BitConfig) -> PlannedTensor:
    entry = tensor.entry
    if tensor.action == "KEEP":
        return kept_tensor(entry, tensor.reason)
    shape = _stored_shape(tensor, config)
    if tensor.action == "DROP" or shape is None:
        return dropped_tensor(entry, tensor.reason)
    quant_type = _quant_type(config)
    storage = STORAGE_DTYPES[config.bnb_4bit_quant_storage or "UINT8"]
    blocks = -(-math.prod(entry.shape) // (config.blocksize or 64))
    nested = bool(config.bnb_4bit_use_double_quant)
    stored = [
        (entry.name, storage, shape),
        (f"{entry.name}.absmax", "U8" if nested else "F32", (blocks,)),
        (f"{entry.name}.quant_map", "F32", (16,)),
    ]
    if nested:
        stored += [
            (f"{entry.name}.nested_absmax", "F32", (-(-blocks // NESTED_BLOCK_SIZE),)),
            (f"{entry.name}.nested_quant_map", "F32", (256,)),
        ]
    parts = [
        OutputTensor(name=name, dtype=dtype, shape=size, group=entry.name)
        for name, dtype, size in stored
    ]
    offset = LONGEST_OFFSET if nested else None
    state = _pack_state(config, entry.dtype, tensor.linear_shape, offset)
    parts.append(
        OutputTensor(
            name=f"{entry.name}.{quant_state_key(quant_type)}",
            dtype="U8",
            shape=(len(state),),
            group=entry.name,
            variable_length=nested,
        )
    )
    return PlannedTensor(
        entry=entry,
        stored=tuple(parts),
        target_type=quant_type.upper(),
        action="QUANTIZE",
        reason=tensor.reason,
        transform="transpose" if tensor.transposed else "copy",
        held_bytes=blocks * HELD_BYTES_PER_BLOCK if nested else 0,
    )


HELD_BYTES_PER_BLOCK = 52
"""Of ``_DoubleQuant``, 20, and when all blocks are known, of their maxima in 8 bits and back, 8,
and of the sum over them, three float64."""

LONGEST_OFFSET = -2.2250738585072014e-308
"""With double quantization the state holds a float in decimal, whose length is known only when
the weight has been seen. No float takes more characters than this one."""


def _pack_state(
    config: Bitsandbytes4BitConfig, dtype: str, shape: tuple[int, ...], offset: float | None
) -> bytes:
    return pack_quant_state(
        _quant_type(config), config.blocksize or 64, TORCH_NAMES[dtype], shape, offset
    )


def _quant_type(config: Bitsandbytes4BitConfig) -> QuantType:
    return "nf4" if config.bnb_4bit_quant_type == "NF4" else "fp4"


class FourBitQuantizer:
    """Quantizes the blocks of one weight; see ``methods.base.TensorQuantizer``."""

    def __init__(self, config: Bitsandbytes4BitConfig, task: TensorTask, device: str) -> None:
        assert task.source is not None
        self._config = config
        self._quant_type = _quant_type(config)
        self._blocksize = config.blocksize or 64
        self._kernels = kernels(device)
        self._dtype = task.source.dtype
        self._shape = task.target_shape
        self.granularity = self._blocksize
        self._double_quant = None
        if config.bnb_4bit_use_double_quant:
            blocks = -(-task.element_count // self._blocksize)
            self._double_quant = _DoubleQuant(blocks)

    def quantize(self, first: int, values: npt.NDArray[np.float32]) -> ChunkResult:
        import numpy as np

        from quantd_server.kernels.dtypes import sum_of_squares

        codes = np.empty((len(values) + 1) // 2, np.uint8)
        absmax = np.empty(-(-len(values) // self._blocksize), np.float32)
        coding = (self._quant_type, self._blocksize)
        self._kernels.quantize_4bit(values, *coding, codes, absmax)
        block = first // self._blocksize
        writes: list[tuple[int, int, Any]] = [(0, first // 2, codes)]
        if self._double_quant is not None:
            moments = self._kernels.block_moments(values, codes, *coding)
            self._double_quant.add(block, absmax, *moments)
            # Completed by ``finish`` with what the final scales make of it.
            return ChunkResult(writes=writes, squared_error=sum_of_squares(values))
        writes.append((1, 4 * block, absmax))
        error = self._kernels.squared_error_4bit(values, codes, absmax, *coding)
        return ChunkResult(writes=writes, squared_error=error)

    def finish(self) -> ChunkResult:
        import numpy as np

        quant_map = np.array(code_table(self._quant_type), np.float32)
        if self._double_quant is None:
            state = _pack_state(self._config, self._dtype, self._shape, None)
            return ChunkResult(writes=[(2, 0, quant_map), (3, 0, state)])
        codes, nested_absmax, offset = self._kernels.double_quantize(self._double_quant.absmax)
        state = _pack_state(self._config, self._dtype, self._shape, float(offset))
        read_back = self._kernels.dequantize_absmax(codes, nested_absmax, offset)
        return ChunkResult(
            writes=[
                (1, 0, codes),
                (2, 0, quant_map),
                (3, 0, nested_absmax),
                (4, 0, np.array(DYNAMIC_MAP, np.float32)),
                (5, 0, state),
            ],
            squared_error=self._double_quant.error_beyond_squares(read_back),
        )


class _DoubleQuant:
    """What double quantization needs to know of the whole weight, by block."""

    def __init__(self, blocks: int) -> None:
        import numpy as np

        self.absmax = np.empty(blocks, np.float32)
        self._cross = np.empty(blocks, np.float64)
        self._square = np.empty(blocks, np.float64)

    def add(
        self,
        block: int,
        absmax: npt.NDArray[np.float32],
        cross: npt.NDArray[np.float64],
        square: npt.NDArray[np.float64],
    ) -> None:
        """Keep what is known of the blocks from ``block`` on."""
        blocks = slice(block, block + len(absmax))
        self.absmax[blocks] = absmax
        self._cross[blocks] = cross
        self._square[blocks] = square

    def error_beyond_squares(self, absmax: npt.NDArray[np.float32]) -> float:
        """The squared error under these scales, less the sum of squares of the weights."""
        scale = absmax.astype(float)
        return float((scale * (scale * self._square - 2 * self._cross)).sum())
