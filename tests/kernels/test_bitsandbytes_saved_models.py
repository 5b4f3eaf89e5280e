"""Whole checkpoints: each tensor that transformers + bitsandbytes save, against these kernels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from quantd_server.kernels.bitsandbytes import (
    blockwise_4bit,
    blockwise_8bit,
    quant_state,
    rowwise_8bit,
    tables,
)

Tensors = dict[str, torch.Tensor]

PROJECTIONS = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)
MODULES = [f"model.layers.{layer}.{name}" for layer in range(2) for name in PROJECTIONS]


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny_llama(directory: Path, dtype: torch.dtype, *, tied: bool) -> Tensors:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=72,  # no multiple of 64: blocks cross rows, and k_proj ends inside a block
        intermediate_size=200,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attention_bias=True,
        tie_word_embeddings=tied,
    )
    LlamaForCausalLM(config).to(dtype).save_pretrained(directory)
    return load_file(directory / "model.safetensors")


def save_quantized(source: Path, output: Path, **options: Any) -> tuple[Tensors, dict[str, Any]]:
    config = BitsAndBytesConfig(**options)
    model = AutoModelForCausalLM.from_pretrained(source, quantization_config=config)
    model.save_pretrained(output)
    saved_config = json.loads((output / "config.json").read_text())["quantization_config"]
    return load_file(output / "model.safetensors"), saved_config


def expected_4bit(
    name: str, weight: torch.Tensor, quant_type: tables.QuantType, storage: str, *, nested: bool
) -> Tensors:
    values = weight.float().numpy().reshape(-1)
    codes = np.empty((values.size + 1) // 2, np.uint8)
    absmax = np.empty(-(-values.size // 64), np.float32)
    blockwise_4bit.quantize_4bit(values, quant_type, 64, codes, absmax)
    shape = quant_state.packed_shape(values.size, storage)
    packed = torch.from_numpy(codes).view(getattr(torch, storage)).reshape(shape)
    tensors = {
        name: packed,
        f"{name}.absmax": torch.from_numpy(absmax),
        f"{name}.quant_map": torch.tensor(tables.code_table(quant_type)),
    }
    offset = None
    if nested:
        absmax_codes, nested_absmax, offset = blockwise_8bit.double_quantize(absmax)
        tensors[f"{name}.absmax"] = torch.from_numpy(absmax_codes)
        tensors[f"{name}.nested_absmax"] = torch.from_numpy(nested_absmax)
        tensors[f"{name}.nested_quant_map"] = torch.tensor(tables.DYNAMIC_MAP)
    dtype = str(weight.dtype).removeprefix("torch.")
    state = quant_state.pack_quant_state(quant_type, 64, dtype, weight.shape, offset)
    tensors[f"{name}.{quant_state.quant_state_key(quant_type)}"] = torch.tensor(
        list(state), dtype=torch.uint8
    )
    return tensors


def expected_8bit(module: str, weight: torch.Tensor) -> Tensors:
    codes = np.empty(tuple(weight.shape), np.int8)
    scale = np.empty(weight.shape[0], np.float32)
    rowwise_8bit.quantize_8bit_rows(weight.float().numpy(), codes, scale)
    return {
        f"{module}.weight": torch.from_numpy(codes),
        f"{module}.SCB": torch.from_numpy(scale),
        f"{module}.weight_format": torch.tensor(0, dtype=torch.uint8),
    }


def assert_same(saved: Tensors, expected: Tensors) -> None:
    assert sorted(saved) == sorted(expected)
    for name, tensor in expected.items():
        got = saved[name]
        assert (got.dtype, got.shape) == (tensor.dtype, tensor.shape), name
        same = got.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)
        assert torch.equal(*same), name


@pytest.mark.parametrize(
    ("quant_type", "storage", "nested", "dtype", "tied"),
    [
        ("nf4", "uint8", False, torch.bfloat16, True),
        ("nf4", "uint8", True, torch.bfloat16, False),
        ("fp4", "uint8", False, torch.float16, False),
        ("fp4", "float16", True, torch.float32, True),
        ("nf4", "bfloat16", True, torch.float32, False),
        ("nf4", "float32", False, torch.float16, True),
        ("nf4", "int8", False, torch.bfloat16, True),
        ("fp4", "float64", False, torch.bfloat16, True),
    ],
)
def test_4bit_checkpoint(
    tmp_path: Path,
    quant_type: tables.QuantType,
    storage: str,
    *,
    nested: bool,
    dtype: torch.dtype,
    tied: bool,
) -> None:
    source = tiny_llama(tmp_path / "source", dtype, tied=tied)
    saved, config = save_quantized(
        tmp_path / "source",
        tmp_path / "output",
        load_in_4bit=True,
        bnb_4bit_quant_type=quant_type,
        bnb_4bit_use_double_quant=nested,
        bnb_4bit_quant_storage=storage,
    )
    expected = {name: t for name, t in source.items() if name[: -len(".weight")] not in MODULES}
    for module in MODULES:
        name = f"{module}.weight"
        expected |= expected_4bit(name, source[name], quant_type, storage, nested=nested)
    assert_same(saved, expected)
    assert config["bnb_4bit_quant_storage"] == storage


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_8bit_checkpoint(tmp_path: Path, dtype: torch.dtype) -> None:
    source = tiny_llama(tmp_path / "source", dtype, tied=False)
    saved, config = save_quantized(tmp_path / "source", tmp_path / "output", load_in_8bit=True)
    expected = {name: t for name, t in source.items() if name[: -len(".weight")] not in MODULES}
    for module in MODULES:
        expected |= expected_8bit(module, source[f"{module}.weight"])
    assert_same(saved, expected)
    assert config["load_in_8bit"] is True
