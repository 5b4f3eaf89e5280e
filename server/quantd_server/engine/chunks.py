"""One chunk of one tensor: read, check, transform, quantize, write."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from quantd_server.checkpoint.reading import StoredTensor
from quantd_server.engine.needed_kernels import FLOAT_BYTES
from quantd_server.engine.pipeline_sizes import CHUNK_ELEMENTS
from quantd_server.errors import QuantdError, quoted
from quantd_server.kernels.dtypes import first_nonfinite, sum_of_squares, to_float32
from quantd_server.methods.base import OutputPart, TensorQuantizer, TensorTask


class Reader(Protocol):
    """Where source bytes come from, such as a ``TensorReader``."""

    def read_into(self, entry: StoredTensor, byte_offset: int, buffer: memoryview) -> None: ...


class Writer(Protocol):
    """Where bytes of the output go, such as an ``Output``."""

    def write_at(self, name: str, offset: int, data: bytes | bytearray | memoryview) -> None: ...


class Chunk(msgspec.Struct, frozen=True):
    """The elements [first, first + count) of a tensor, flattened in row-major order."""

    first: int
    count: int


class ChunkOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a chunk."""

    source_bytes: int
    squared_error: float = 0.0
    squared_sum: float = 0.0
    first_nonfinite: int = -1
    """Index in the tensor of the first value that is NaN or infinite; -1 when all are finite."""


def split(task: TensorTask, quantizer: TensorQuantizer | None) -> Iterator[Chunk]:
    """The chunks of a tensor: whole multiples of what the quantizer and the transform need."""
    if not task.element_count:
        return
    unit = quantizer.granularity if quantizer else 1
    if task.transform == "permute_heads":
        unit = math.lcm(unit, task.element_count // task.head_count)
    elif task.transform == "transpose":
        unit = task.element_count
    step = max(1, CHUNK_ELEMENTS // unit) * unit
    for first in range(0, task.element_count, step):
        yield Chunk(first, min(step, task.element_count - first))


class ChunkWorker:
    """Does chunks; called by several threads, each with buffers of its own."""

    def __init__(self, reader: Reader, output: Writer, *, allow_non_finite: bool) -> None:
        self._reader = reader
        self._output = output
        self._allow_non_finite = allow_non_finite
        self._buffers = threading.local()
        self._lock = threading.Lock()
        self.variable_parts: dict[str, dict[str, bytes]] = {}
        """Contents of the parts of variable length, by file and name: ``sealing`` writes them."""

    def copy(self, task: TensorTask, chunk: Chunk) -> ChunkOutcome:
        """Copy a chunk bit for bit."""
        assert task.source is not None
        # Not all elements are whole bytes: F4 and F6 are packed.
        begin, end = (
            task.source.nbytes * element // task.element_count
            for element in (chunk.first, chunk.first + chunk.count)
        )
        raw = self._read(task, begin, end - begin)
        bad = -1
        if task.source.dtype in FLOAT_BYTES:  # others are copied as they are
            bad = self._check(task, chunk, self._as_float32(raw, task, chunk))
        self._write(task, 0, begin, raw)
        return ChunkOutcome(source_bytes=len(raw), first_nonfinite=bad)

    def check(self, task: TensorTask, chunk: Chunk) -> int:
        """Index in the tensor of the first value of a chunk that is not finite; -1 when all are.

        Raises NON_FINITE_WEIGHTS unless such values are allowed.
        """
        assert task.source is not None
        item = FLOAT_BYTES[task.source.dtype]
        raw = self._read(task, chunk.first * item, chunk.count * item)
        return self._check(task, chunk, self._as_float32(raw, task, chunk))

    def quantize(self, task: TensorTask, chunk: Chunk, quantizer: TensorQuantizer) -> ChunkOutcome:
        """Quantize a chunk."""
        assert task.source is not None
        item = FLOAT_BYTES[task.source.dtype]
        raw = self._read(task, chunk.first * item, chunk.count * item)
        values = self._as_float32(raw, task, chunk)
        bad = self._check(task, chunk, values)
        if bad >= 0:
            np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        values = _transform(values, task)
        result = quantizer.quantize(chunk.first, values)
        if not math.isfinite(result.squared_error):
            raise _out_of_range(task)
        self.write(task, result.writes)
        return ChunkOutcome(
            source_bytes=len(raw),
            squared_error=result.squared_error,
            squared_sum=sum_of_squares(values),
            first_nonfinite=bad,
        )

    def write(self, task: TensorTask, writes: list[tuple[int, int, object]]) -> None:
        """Write pieces of the parts of a task."""
        for part, offset, data in writes:
            self._write(task, part, offset, memoryview(data).cast("B"))  # type: ignore[arg-type]

    def take_over(self, task: TensorTask, contents: Mapping[str, bytes]) -> None:
        """Take in the parts of variable length of a tensor that is in the output already."""
        for part in task.parts:
            if part.variable_length:
                self.variable_parts.setdefault(part.file, {})[part.name] = contents[part.name]

    def as_written(self, task: TensorTask) -> TensorTask:
        """The task of a tensor that is done, with the true lengths of its parts."""
        if not any(part.variable_length for part in task.parts):
            return task
        return msgspec.structs.replace(task, parts=tuple(map(self._part_as_written, task.parts)))

    def _part_as_written(self, part: OutputPart) -> OutputPart:
        if not part.variable_length:
            return part
        length = len(self.variable_parts[part.file][part.name])
        return msgspec.structs.replace(part, shape=(length,), nbytes=length)

    def _write(self, task: TensorTask, index: int, offset: int, data: memoryview) -> None:
        part = task.parts[index]
        if offset + len(data) > part.nbytes:
            raise ValueError(
                f"{part.name}: {len(data)} bytes at {offset} do not fit into {part.nbytes}"
            )
        if part.variable_length:
            with self._lock:
                self.variable_parts.setdefault(part.file, {})[part.name] = bytes(data)
        else:
            self._output.write_at(part.file, part.offset + offset, data)

    def _read(self, task: TensorTask, begin: int, size: int) -> memoryview:
        """``size`` bytes of the source tensor, from its byte ``begin`` on."""
        assert task.source is not None
        view = memoryview(self._buffer("raw", size, np.uint8))  # type: ignore[arg-type]
        self._reader.read_into(task.source, begin, view)
        return view

    def _as_float32(
        self, raw: memoryview, task: TensorTask, chunk: Chunk
    ) -> npt.NDArray[np.float32]:
        assert task.source is not None
        values = self._buffer("values", chunk.count, np.float32)
        to_float32(np.frombuffer(raw, np.uint8), task.source.dtype, values)  # type: ignore[arg-type]
        return values

    def _check(self, task: TensorTask, chunk: Chunk, values: npt.NDArray[np.float32]) -> int:
        """Index of the first non-finite value in the tensor, -1 if none; raises unless allowed."""
        bad = first_nonfinite(values)
        if bad < 0:
            return -1
        assert task.source is not None
        if not self._allow_non_finite:
            raise not_finite(task.source.name, float(values[bad]), chunk.first + bad)
        return chunk.first + bad

    def _buffer(self, name: str, count: int, dtype: type[np.generic]) -> npt.NDArray[Any]:
        """An array of ``count`` elements, reused by the thread from chunk to chunk."""
        kept: npt.NDArray[Any] | None = getattr(self._buffers, name, None)
        if kept is None or len(kept) < count:
            kept = np.empty(count, dtype)
            setattr(self._buffers, name, kept)
        return kept[:count]


def not_finite(name: str, value: float, element: int) -> QuantdError:
    """The error about a tensor whose element ``element`` is ``value``, NaN or infinite."""
    return QuantdError(
        reason="NON_FINITE_WEIGHTS",
        field="spec.source_uri",
        kind="precondition",
        message=f"tensor {quoted(name)} holds {value} at element {element}; weights have to be "
        "finite",
        remedy="repair the checkpoint, or set allow_non_finite to have such weights replaced by "
        "zero where they are quantized",
    )


def _out_of_range(task: TensorTask) -> QuantdError:
    name = task.source.name if task.source else task.target_name
    return QuantdError(
        reason="WEIGHTS_OUT_OF_RANGE",
        field="spec.source_uri",
        kind="precondition",
        message=f"tensor {quoted(name)} has weights so large that {task.target_type} cannot hold "
        "them: they would read back as infinite",
        remedy="choose another type for this tensor, or repair the checkpoint",
    )


def _transform(values: npt.NDArray[np.float32], task: TensorTask) -> npt.NDArray[np.float32]:
    match task.transform:
        case "copy":
            return values
        case "add_one":
            values += np.float32(1.0)
            return values
        case "transpose":
            return np.ascontiguousarray(values.reshape(task.shape).T).reshape(-1)
        case "permute_heads":
            # [head, half, pair, column] -> [head, pair, half, column]
            columns = math.prod(task.shape[1:])
            pairs = task.shape[0] // task.head_count // 2
            halves = values.reshape(-1, 2, pairs, columns)
            return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(-1)
