"""Numerics of the ggml tensor types: quantize, dequantize, squared error.

Names resolve on first use, so that planning can read :data:`TYPES` without numpy and numba.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from quantd_server.kernels.gguf.block_shapes import TYPES, BlockShape

if TYPE_CHECKING:
    from quantd_server.kernels.gguf.conversion import dequantize, quantize, squared_error

__all__ = ["TYPES", "BlockShape", "dequantize", "quantize", "squared_error"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.conversion"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
