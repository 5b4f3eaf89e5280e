"""The kernels for a device: ours on the CPU, the library's own on others."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any


def kernels(device: str) -> Any:
    """The functions of ``kernels.bitsandbytes`` for a `DeviceKind` of the spec."""
    if device == "CPU":
        from quantd_server.kernels.bitsandbytes import (
            block_moments,
            blockwise_4bit,
            blockwise_8bit,
            rowwise_8bit,
        )

        return SimpleNamespace(
            quantize_4bit=blockwise_4bit.quantize_4bit,
            squared_error_4bit=blockwise_4bit.squared_error_4bit,
            block_moments=block_moments.block_moments,
            double_quantize=blockwise_8bit.double_quantize,
            dequantize_absmax=blockwise_8bit.dequantize_absmax,
            quantize_8bit_rows=rowwise_8bit.quantize_8bit_rows,
            squared_error_8bit=rowwise_8bit.squared_error_8bit,
        )
    from quantd_server.kernels.bitsandbytes import (
        block_moments,
        blockwise_4bit,
        blockwise_8bit,
        rowwise_8bit,
        torch_device,
    )

    name = device.lower()
    return SimpleNamespace(
        quantize_4bit=partial(torch_device.quantize_4bit, device=name),
        double_quantize=partial(torch_device.double_quantize, device=name),
        quantize_8bit_rows=partial(torch_device.quantize_8bit_rows, device=name),
        # The error is measured on what came back, so it needs no device.
        squared_error_4bit=blockwise_4bit.squared_error_4bit,
        block_moments=block_moments.block_moments,
        dequantize_absmax=blockwise_8bit.dequantize_absmax,
        squared_error_8bit=rowwise_8bit.squared_error_8bit,
    )
