"""The public functions: argument checks, then the kernel that the type's registry entry names.

Every function works on whole rows, runs on the calling thread only, keeps no state and releases
the GIL while it computes: threads may convert different rows of one tensor at the same time, and
the bytes do not depend on how the rows are cut.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from quantd_server.errors import QuantdError
from quantd_server.kernels.gguf import ggml_library
from quantd_server.kernels.gguf.block_shapes import TYPES, BlockShape
from quantd_server.kernels.gguf.registry import DEQUANTIZE, QUANTIZE
from quantd_server.kernels.gguf.squared_difference import add_squared_differences

Values = npt.NDArray[np.float32]
Blocks = npt.NDArray[np.uint8]

_TILE_ELEMENTS = 1 << 14
"""Weights that :func:`squared_error` decodes at a time: 64 KiB of float32 stay in the cache."""

_IGNORE_IMPORTANCE = frozenset({"F32", "F16", "BF16", "Q8_0", "MXFP4", "TQ1_0", "TQ2_0"})

_IQ3_S_LIMIT = 1e11
"""Largest magnitude for IQ3_S. Its search sums up to 480 cubed weights in float32 and ggml aborts
the process when that overflows, which it does from about 9e11."""


def quantize(values: Values, ggml_type: str, out: Blocks, importance: Values | None = None) -> None:
    """Quantize rows of weights to blocks of ``ggml_type``, byte-identical to ggml.

    ggml here means its C code without fused multiply-adds, as its wheels for x86-64 are built.

    Args:
        values: float32 [rows, columns], C-contiguous. The caller promises that all values are
            finite: ggml silently writes wrong blocks for NaN and infinity.
        ggml_type: a key of :data:`TYPES`.
        out: uint8 [rows, columns / elements * bytes], C-contiguous; overwritten.
        importance: float32 [columns], finite and not negative: the mean squared activation that
            each column meets (llama.cpp's importance matrix). Types that have no use for it
            ignore it, as ggml does.

    Raises:
        ValueError: an argument has a wrong type, dtype, shape or layout.
        QuantdError: ``PACKAGE_MISSING``, for the types that ggml's own library converts;
            ``WEIGHTS_OUT_OF_RANGE``, for IQ3_S.
    """
    shape = _block_shape(ggml_type)
    rows, columns = _matrix("values", values, np.float32)
    if columns % shape.elements:
        raise ValueError(
            f"got {columns} columns, {ggml_type} needs a multiple of {shape.elements}: "
            "choose another type for this tensor"
        )
    _output("out", out, np.uint8, (rows, shape.row_bytes(columns)))
    if importance is not None:
        _check_importance(importance, columns)
    if rows == 0 or columns == 0:
        return
    if ggml_type == "IQ3_S":
        _check_iq3_s_range(values, importance)
    own = QUANTIZE.get(ggml_type)
    if own is not None and (importance is None or ggml_type in _IGNORE_IMPORTANCE):
        own(values, out)
    else:
        ggml_library.quantize(values, ggml_type, out, importance)


def dequantize(blocks: Blocks, ggml_type: str, out: Values) -> None:
    """Decode rows of blocks, bit-equal to gguf-py and ggml.

    Args:
        blocks: uint8 [rows, row bytes], C-contiguous.
        ggml_type: a key of :data:`TYPES`.
        out: float32 [rows, row bytes / bytes * elements], C-contiguous; overwritten.

    Raises:
        ValueError: an argument has a wrong type, dtype, shape or layout.
        QuantdError: ``PACKAGE_MISSING``, for the types that ggml's own library converts.
    """
    shape = _block_shape(ggml_type)
    rows, columns = _decoded_shape(blocks, ggml_type, shape)
    _output("out", out, np.float32, (rows, columns))
    if out.size:
        _decode(ggml_type)(blocks, out)


def squared_error(values: Values, blocks: Blocks, ggml_type: str) -> float:
    """Sum over all weights of (value - decoded value) squared, in float64.

    Args:
        values: float32 [rows, columns], C-contiguous and finite, the weights before quantization.
        blocks: uint8 [rows, row bytes], C-contiguous, their blocks.
        ggml_type: a key of :data:`TYPES`.

    Raises:
        ValueError: an argument has a wrong type, dtype, shape or layout.
        QuantdError: ``PACKAGE_MISSING``, for the types that ggml's own library converts.
    """
    shape = _block_shape(ggml_type)
    rows, columns = _decoded_shape(blocks, ggml_type, shape)
    _require_shape("values", _matrix("values", values, np.float32), (rows, columns))
    if values.size == 0:
        return 0.0
    decode = _decode(ggml_type)
    # Blocks do not know their row, so a tile may end anywhere between two blocks.
    flat_values = values.reshape(-1, shape.elements)
    flat_blocks = blocks.reshape(-1, shape.bytes)
    step = max(1, _TILE_ELEMENTS // shape.elements)
    tile = np.empty((min(step, len(flat_values)), shape.elements), np.float32)
    total = 0.0
    for start in range(0, len(flat_values), step):
        chunk = flat_values[start : start + step]
        decoded = tile[: len(chunk)]
        decode(flat_blocks[start : start + step], decoded)
        total += add_squared_differences(chunk.reshape(-1), decoded.reshape(-1))
    return total


def _decode(ggml_type: str) -> Callable[[Blocks, Values], None]:
    own = DEQUANTIZE.get(ggml_type)
    if own is not None:
        return own
    return lambda blocks, out: ggml_library.dequantize(blocks, ggml_type, out)


def _block_shape(ggml_type: str) -> BlockShape:
    shape = TYPES.get(ggml_type)
    if shape is None:
        raise ValueError(f"got ggml type {ggml_type!r}, allowed: {', '.join(TYPES)}")
    return shape


def _decoded_shape(blocks: Blocks, ggml_type: str, shape: BlockShape) -> tuple[int, int]:
    rows, row_bytes = _matrix("blocks", blocks, np.uint8)
    if row_bytes % shape.bytes:
        raise ValueError(
            f"got rows of {row_bytes} bytes, {ggml_type} needs a multiple of {shape.bytes}"
        )
    return rows, row_bytes // shape.bytes * shape.elements


def _matrix(name: str, array: object, dtype: type[np.generic]) -> tuple[int, int]:
    """Check an aligned C-contiguous array of two dimensions and return its shape."""
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name}: got {type(array).__name__}, allowed: a NumPy array")
    if array.dtype != dtype or array.ndim != 2:
        raise ValueError(
            f"{name}: got {array.dtype} in {array.ndim} dimensions, "
            f"allowed: {dtype.__name__} in 2 dimensions"
        )
    if not (array.flags.c_contiguous and array.flags.aligned):
        raise ValueError(
            f"{name}: got strides {array.strides} at address {array.ctypes.data:#x}, "
            "allowed: an aligned C-contiguous array; use numpy.ascontiguousarray or a copy"
        )
    rows, columns = array.shape
    return rows, columns


def _output(
    name: str, array: npt.NDArray[np.generic], dtype: type[np.generic], shape: tuple[int, int]
) -> None:
    _require_shape(name, _matrix(name, array, dtype), shape)
    if not array.flags.writeable:
        raise ValueError(f"{name}: got a read-only array, allowed: a writable one")


def _require_shape(name: str, got: tuple[int, int], allowed: tuple[int, int]) -> None:
    if got != allowed:
        raise ValueError(f"{name}: got shape {got}, allowed: {allowed}")


def _check_importance(importance: Values, columns: int) -> None:
    if not isinstance(importance, np.ndarray) or importance.dtype != np.float32:
        got = getattr(importance, "dtype", type(importance).__name__)
        raise ValueError(f"importance: got {got}, allowed: a float32 array")
    if importance.shape != (columns,) or not importance.flags.c_contiguous:
        raise ValueError(
            f"importance: got shape {importance.shape} and strides {importance.strides}, "
            f"allowed: ({columns},), C-contiguous"
        )
    if not (np.isfinite(importance).all() and (importance >= 0).all()):
        raise ValueError("importance: got negative or non-finite entries, allowed: finite, >= 0")


def _check_iq3_s_range(values: Values, importance: Values | None) -> None:
    """Keep ggml's float32 sums finite: it aborts the process when they are not."""
    largest = float(max(values.max(), -values.min()))
    weight = largest if importance is None else float(importance.max())
    if not (largest <= _IQ3_S_LIMIT and 1e3 * weight * largest**2 <= 1e37):
        raise QuantdError(
            reason="WEIGHTS_OUT_OF_RANGE",
            field="spec.source_uri",
            kind="precondition",
            message=f"got weights of magnitude {largest:.3g} (importance up to {weight:.3g}); "
            f"IQ3_S takes magnitudes up to {_IQ3_S_LIMIT:.0e} and importance * magnitude^2 up to "
            "1e34",
            remedy="choose another type for this tensor, or repair the checkpoint",
        )
