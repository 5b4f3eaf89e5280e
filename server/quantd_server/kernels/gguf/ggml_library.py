"""The prebuilt ggml C library, called through ctypes.

``libggml-python`` ships ``libggml-base`` as a wheel. ctypes releases the GIL for every call, so
threads may work on different rows at once. ggml answers bad arguments with ``abort()``, which
would end the whole process; :mod:`.conversion` checks all arguments before it calls anything here.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quantd_server.errors import QuantdError

Values = npt.NDArray[np.float32]
Blocks = npt.NDArray[np.uint8]

TYPE_IDS = {
    "F32": 0,
    "F16": 1,
    "Q4_0": 2,
    "Q4_1": 3,
    "Q5_0": 6,
    "Q5_1": 7,
    "Q8_0": 8,
    "Q2_K": 10,
    "Q3_K": 11,
    "Q4_K": 12,
    "Q5_K": 13,
    "Q6_K": 14,
    "IQ4_NL": 20,
    "IQ3_S": 21,
    "IQ4_XS": 23,
    "BF16": 30,
    "TQ1_0": 34,
    "TQ2_0": 35,
    "MXFP4": 39,
}
"""``enum ggml_type`` of ggml.h."""

_LIBRARY_FILES = (
    "lib64/libggml-base.so",  # Linux with glibc
    "lib/libggml-base.so",  # Linux with musl
    "lib/libggml-base.dylib",  # macOS
    "bin/ggml-base.dll",  # Windows
)


def library_path() -> Path:
    """Where the installed ``libggml-base`` lies.

    Raises:
        QuantdError: ``PACKAGE_MISSING`` if the package or its library is not installed.
    """
    spec = importlib.util.find_spec("libggml")
    folders = spec.submodule_search_locations or [] if spec else []
    for folder in folders:
        for name in _LIBRARY_FILES:
            if (path := Path(folder, name)).is_file():
                return path
    raise QuantdError(
        reason="PACKAGE_MISSING",
        message="this conversion runs in the ggml library, which is not installed",
        remedy="pip install libggml-python in the server's environment",
        kind="precondition",
    )


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(library_path()))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = (
        ctypes.c_int,  # enum ggml_type
        ctypes.c_void_p,  # const float * src
        ctypes.c_void_p,  # void * dst
        ctypes.c_int64,  # index of the first element
        ctypes.c_int64,  # rows
        ctypes.c_int64,  # elements per row
        ctypes.c_void_p,  # const float * imatrix, or NULL
    )
    return library


def quantize(values: Values, ggml_type: str, out: Blocks, importance: Values | None) -> None:
    """Quantize ``values`` (rows, columns) into ``out`` with ``ggml_quantize_chunk``.

    All arrays are C-contiguous and of fitting shape, ``values`` is finite.
    """
    rows, columns = values.shape
    _library().ggml_quantize_chunk(
        TYPE_IDS[ggml_type],
        values.ctypes.data,
        out.ctypes.data,
        0,
        rows,
        columns,
        None if importance is None else importance.ctypes.data,
    )


def dequantize(blocks: Blocks, ggml_type: str, out: Values) -> None:
    """Decode ``blocks`` (rows, row bytes) into ``out`` with ``dequantize_row_*``."""
    function = getattr(_library(), f"dequantize_row_{ggml_type.lower().replace('_k', '_K')}")
    function.restype = None
    function(
        ctypes.c_void_p(blocks.ctypes.data),
        ctypes.c_void_p(out.ctypes.data),
        ctypes.c_int64(out.size),
    )
