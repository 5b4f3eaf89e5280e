"""The torch path gives the numba kernels' bytes on a CPU; the numba kernels bear threads."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from quantd_server.kernels.bitsandbytes import (
    blockwise_4bit,
    blockwise_8bit,
    rowwise_8bit,
    tables,
    torch_device,
)


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape[0]).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("blocksize", [32, 64, 4096])
@pytest.mark.parametrize("size", [1, 2, 63, 4096, 10_001])
def test_4bit(quant_type: tables.QuantType, blocksize: int, size: int) -> None:
    values, blocks = normal(size), -(-size // blocksize)
    codes, absmax = np.empty((size + 1) // 2, np.uint8), np.empty(blocks, np.float32)
    codes_torch, absmax_torch = np.empty_like(codes), np.empty_like(absmax)
    blockwise_4bit.quantize_4bit(values, quant_type, blocksize, codes, absmax)
    torch_device.quantize_4bit(
        values, quant_type, blocksize, codes_torch, absmax_torch, device="cpu"
    )
    assert codes.tobytes() == codes_torch.tobytes()
    assert absmax.tobytes() == absmax_torch.tobytes()

    out, out_torch = np.empty(size, np.float32), np.empty(size, np.float32)
    blockwise_4bit.dequantize_4bit(codes, absmax, quant_type, blocksize, out)
    torch_device.dequantize_4bit(codes, absmax, quant_type, blocksize, out_torch, device="cpu")
    assert out.tobytes() == out_torch.tobytes()


@pytest.mark.parametrize("size", [1, 255, 256, 257, 5000])
def test_double_quantization(size: int) -> None:
    absmax = np.abs(normal(size))
    codes, nested_absmax, offset = blockwise_8bit.double_quantize(absmax)
    codes_torch, nested_torch, offset_torch = torch_device.double_quantize(absmax, device="cpu")
    assert codes.tobytes() == codes_torch.tobytes()
    assert nested_absmax.tobytes() == nested_torch.tobytes()
    assert offset == offset_torch
    seen = torch_device.dequantize_absmax(codes, nested_absmax, offset, device="cpu")
    ours = blockwise_8bit.dequantize_absmax(codes, nested_absmax, offset)
    assert seen.tobytes() == ours.tobytes()


def test_8bit() -> None:
    values = normal(33, 70)
    codes, scale = np.empty((33, 70), np.int8), np.empty(33, np.float32)
    codes_torch, scale_torch = np.empty_like(codes), np.empty_like(scale)
    rowwise_8bit.quantize_8bit_rows(values, codes, scale)
    torch_device.quantize_8bit_rows(values, codes_torch, scale_torch, device="cpu")
    assert codes.tobytes() == codes_torch.tobytes()
    assert scale.tobytes() == scale_torch.tobytes()
    out, out_torch = np.empty_like(values), np.empty_like(values)
    rowwise_8bit.dequantize_8bit_rows(codes, scale, out)
    torch_device.dequantize_8bit_rows(codes, scale, out_torch, device="cpu")
    assert out.tobytes() == out_torch.tobytes()


def test_threads_on_different_chunks_do_not_disturb_each_other() -> None:
    chunks = [normal(size) for size in range(60_000, 60_016)]

    def quantize(values: np.ndarray) -> bytes:
        codes = np.empty((values.size + 1) // 2, np.uint8)
        absmax = np.empty(-(-values.size // 64), np.float32)
        blockwise_4bit.quantize_4bit(values, "nf4", 64, codes, absmax)
        nested_codes, nested_absmax, offset = blockwise_8bit.double_quantize(absmax)
        parts = (codes, absmax, nested_codes, nested_absmax, offset)
        return b"".join(part.tobytes() for part in parts)

    alone = [quantize(values) for values in chunks]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(quantize, chunks)) == alone
