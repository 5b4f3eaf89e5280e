"""The kernels of this package through torch and bitsandbytes on a torch device, numpy in and out.

The signatures are those of blockwise_4bit, blockwise_8bit and rowwise_8bit with a `device` added
("cuda", "cuda:1", "cpu"). Imports torch and bitsandbytes: import this module only where a device
other than the CPU is used. Results are the library's own for that device: on a CUDA device the
codes may differ from those of a CPU where a value is about halfway between two codes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from bitsandbytes import functional

from quantd_server.kernels.bitsandbytes.tables import NESTED_BLOCK_SIZE, QuantType, code_table

Float32Array = npt.NDArray[np.float32]
Uint8Array = npt.NDArray[np.uint8]
Int8Array = npt.NDArray[np.int8]


def _to_device(array: npt.NDArray[Any], device: str) -> torch.Tensor:
    return torch.from_numpy(array).to(device)


def _write(tensor: torch.Tensor, out: npt.NDArray[Any]) -> None:
    torch.from_numpy(out).copy_(tensor.reshape(out.shape))


def quantize_4bit(
    values: Float32Array,
    quant_type: QuantType,
    blocksize: int,
    out_codes: Uint8Array,
    out_absmax: Float32Array,
    *,
    device: str,
) -> None:
    """See `blockwise_4bit.quantize_4bit`."""
    packed, state = functional.quantize_4bit(
        _to_device(values, device), blocksize=blocksize, quant_type=quant_type
    )
    _write(packed, out_codes)
    _write(state.absmax, out_absmax)


def dequantize_4bit(
    codes: Uint8Array,
    absmax: Float32Array,
    quant_type: QuantType,
    blocksize: int,
    out: Float32Array,
    *,
    device: str,
) -> None:
    """See `blockwise_4bit.dequantize_4bit`.

    In plain torch: the library's own function compiles for each new odd size, which takes seconds.
    """
    table = torch.tensor(code_table(quant_type), device=device)
    packed = _to_device(codes, device)
    both = torch.stack([packed >> 4, packed & 15], dim=1).reshape(-1)[: out.size]
    scale = _to_device(absmax, device).repeat_interleave(blocksize)[: out.size]
    _write(table[both.long()] * scale, out)


def double_quantize(
    absmax: Float32Array, *, device: str
) -> tuple[Uint8Array, Float32Array, np.float32]:
    """See `blockwise_8bit.double_quantize`. The offset is the mean as the device sums it."""
    values = _to_device(absmax, device)
    offset = values.mean()
    codes, state = functional.quantize_blockwise(values - offset, blocksize=NESTED_BLOCK_SIZE)
    return codes.cpu().numpy(), state.absmax.cpu().numpy(), np.float32(offset.item())


def dequantize_absmax(
    codes: Uint8Array, nested_absmax: Float32Array, offset: float | np.float32, *, device: str
) -> Float32Array:
    """See `blockwise_8bit.dequantize_absmax`."""
    absmax = functional.dequantize_blockwise(
        _to_device(codes, device),
        absmax=_to_device(nested_absmax, device),
        blocksize=NESTED_BLOCK_SIZE,
    )
    shifted: Float32Array = (absmax + float(offset)).cpu().numpy()
    return shifted


def quantize_8bit_rows(
    values: Float32Array, out: Int8Array, out_scale: Float32Array, *, device: str
) -> None:
    """See `rowwise_8bit.quantize_8bit_rows`."""
    halves = _to_device(values, device).to(torch.float16)
    codes, scale, _ = functional.int8_vectorwise_quant(halves)
    _write(codes, out)
    _write(scale, out_scale)


def dequantize_8bit_rows(
    codes: Int8Array, scale: Float32Array, out: Float32Array, *, device: str
) -> None:
    """See `rowwise_8bit.dequantize_8bit_rows`."""
    dequantized = functional.int8_vectorwise_dequant(
        _to_device(codes, device), _to_device(scale, device)
    )
    _write(dequantized, out)
