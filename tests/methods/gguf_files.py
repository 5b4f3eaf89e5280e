"""Small .gguf files for the tests of the GGUF room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests import llama_cpp

from quantd_server.methods.gguf.description import ConvertedTensor, MetadataEntry
from quantd_server.methods.gguf.metadata_writer import TypedTensor, build_header


def llama() -> llama_cpp.LlamaCpp:
    """llama.cpp, or a skip that says how to get it."""
    try:
        return llama_cpp.load()
    except llama_cpp.LlamaCppUnavailable as reason:
        pytest.skip(str(reason))


def transformed(tensor: ConvertedTensor, weights: Mapping[str, NDArray]) -> NDArray[np.float32]:
    """The float32 values of a described tensor, as its description says."""
    if tensor.source is None:
        return np.asarray(tensor.values, np.float32)
    weight = weights[tensor.source].astype(np.float32)
    if tensor.transform == "add_one":
        return weight + 1
    if tensor.transform == "permute_heads":
        heads = tensor.head_count
        halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
        return halves.swapaxes(1, 2).reshape(weight.shape)
    return weight


def as_bytes(values: NDArray[np.float32], ggml_type: str) -> bytes:
    """F32, F16 or BF16 bytes (BF16 rounded to nearest even)."""
    if ggml_type == "F32":
        return values.astype(np.float32).tobytes()
    if ggml_type == "F16":
        return values.astype(np.float16).tobytes()
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16).tobytes()


def write(
    path: Path,
    gguf_arch: str,
    metadata: Sequence[MetadataEntry],
    tensors: Sequence[tuple[TypedTensor, NDArray[np.float32]]],
    file_type: int,
) -> None:
    layout = build_header(gguf_arch, metadata, [tensor for tensor, _ in tensors], file_type)
    with path.open("wb") as file:
        file.truncate(layout.file_size)
        file.write(layout.header)
        for tensor, values in tensors:
            offset, nbytes = layout.places[tensor.name]
            raw = as_bytes(values, tensor.ggml_type)
            assert len(raw) == nbytes
            file.seek(offset)
            file.write(raw)
