"""quantd.json: its errors are those of the dequantized output, computed here in float64."""

from __future__ import annotations

import json
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import bitsandbytes.functional as bnb
import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize
from numpy.typing import NDArray
from tests import tiny_models
from tests.quantizing import Stored, quantize, stored_tensors

NF4 = {"bnb_4bit_quant_type": "NF4"}
FP4 = {"bnb_4bit_quant_type": "FP4"}
DOUBLE = {"bnb_4bit_use_double_quant": True}
TORCH_TYPES = {"U8": torch.uint8, "F32": torch.float32, "BF16": torch.bfloat16, "I8": torch.int8}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("provenance") / "source"
    return tiny_models.write(folder, hidden=256, intermediate=512)


def tensor(stored: Stored, name: str) -> torch.Tensor:
    dtype, shape, data = stored[name]
    return torch.frombuffer(bytearray(data), dtype=TORCH_TYPES[dtype]).reshape(shape)


def relative_error(got: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(got - expected).sum() / np.square(expected).sum()))


def read_back_4bit(stored: Stored, name: str) -> NDArray[np.float64]:
    parts = {
        key.removeprefix(f"{name}."): tensor(stored, key)
        for key in stored
        if key.startswith(f"{name}.")
    }
    state = bnb.QuantState.from_dict(parts, device=torch.device("cpu"))
    state.dtype = torch.float32  # the stored values themselves, not rounded to bfloat16
    return bnb.dequantize_4bit(tensor(stored, name), state).numpy().astype(np.float64)


def read_back_8bit(stored: Stored, name: str) -> NDArray[np.float64]:
    scale = tensor(stored, f"{name.removesuffix('.weight')}.SCB").numpy().astype(np.float64)
    return tensor(stored, name).numpy().astype(np.float64) * scale[:, None] / 127


@pytest.mark.parametrize(
    ("method", "config", "read_back"),
    [
        ("bitsandbytes_8bit", {}, read_back_8bit),
        ("bitsandbytes_4bit", NF4, read_back_4bit),
        ("bitsandbytes_4bit", NF4 | DOUBLE, read_back_4bit),
        ("bitsandbytes_4bit", FP4, read_back_4bit),
        ("bitsandbytes_4bit", FP4 | DOUBLE | {"blocksize": 256}, read_back_4bit),
    ],
)
def test_bitsandbytes_errors(tmp_path, source, method, config, read_back) -> None:
    result = quantize(source, tmp_path / "output", method, config)
    record = json.loads((tmp_path / "output" / "quantd.json").read_text())
    original, stored = stored_tensors(source), stored_tensors(tmp_path / "output")
    squared_error = squared_sum = 0.0
    for name, entry in record["tensors"].items():
        if not name.endswith("_proj.weight"):
            assert entry["relative_error"] is None
            continue
        weight = tensor(original, name).float().numpy().astype(np.float64)
        got = read_back(stored, name).reshape(weight.shape)
        assert entry["relative_error"] == pytest.approx(relative_error(got, weight), rel=1e-5)
        squared_error += np.square(got - weight).sum()
        squared_sum += np.square(weight).sum()
    assert result.relative_error == pytest.approx(np.sqrt(squared_error / squared_sum), rel=1e-5)


@pytest.mark.parametrize("file_type", ["Q4_K_M", "Q8_0", "Q5_1", "IQ4_XS", "F16"])
def test_gguf_errors(tmp_path, source, file_type) -> None:
    # Rows are reordered on the way: the source in the order of the file is our BF16 file.
    quantize(source, tmp_path / "bf16.gguf", "gguf", {"file_type": "BF16"})
    quantize(source, tmp_path / "output.gguf", "gguf", {"file_type": file_type})
    record = json.loads((tmp_path / "output.gguf.quantd.json").read_text())
    files = [gguf.GGUFReader(tmp_path / name) for name in ("bf16.gguf", "output.gguf")]
    values = [
        {
            tensor.name: dequantize(tensor.data, tensor.tensor_type).astype(np.float64)
            for tensor in file.tensors
        }
        for file in files
    ]
    assert record["tensors"].keys() == values[1].keys()
    for name, entry in record["tensors"].items():
        expected = relative_error(values[1][name].ravel(), values[0][name].ravel())
        assert entry["relative_error"] == pytest.approx(expected, rel=1e-5, abs=1e-12), name


def test_what_it_was_made_from(tmp_path, source) -> None:
    config = NF4 | {"llm_int8_skip_modules": ["v_proj"]}
    result = quantize(source, tmp_path / "output", "bitsandbytes_4bit", config)
    record = json.loads((tmp_path / "output" / "quantd.json").read_text())
    assert record["format_version"] == 1
    assert record["method"] == "bitsandbytes_4bit"
    assert record["config"] == {
        "bnb_4bit_quant_type": "NF4",
        "bnb_4bit_compute_dtype": "FLOAT32",
        "bnb_4bit_use_double_quant": False,
        "bnb_4bit_quant_storage": "UINT8",
        "blocksize": 64,
        "llm_int8_skip_modules": ["v_proj"],
        "llm_int8_enable_fp32_cpu_offload": False,
    }
    assert record["device"] == "CPU"
    assert record["source"]["bytes"] == result.source_bytes
    assert record["source"]["tensors"] == 20
    assert record["packages"]["numpy"] == version("numpy")
    weights = (tmp_path / "output" / "model.safetensors").read_bytes()
    assert record["files"] == {
        "model.safetensors": {"bytes": len(weights), "sha256": sha256(weights).hexdigest()}
    }
    entries = record["tensors"]
    assert entries["model.layers.0.self_attn.v_proj.weight"]["type"] == "BF16"
    assert "v_proj" in entries["model.layers.0.self_attn.v_proj.weight"]["reason"]
    assert entries["model.layers.0.self_attn.q_proj.weight"]["type"] == "NF4"
    assert list(entries) == list(stored_tensors(source))


def test_the_same_job_elsewhere_gives_the_same_record(tmp_path, source) -> None:
    elsewhere = tiny_models.write(tmp_path / "copy", hidden=256, intermediate=512)
    quantize(source, tmp_path / "one", "bitsandbytes_4bit", NF4, threads=1)
    quantize(elsewhere, tmp_path / "two", "bitsandbytes_4bit", NF4, threads=4)
    one, two = ((tmp_path / name / "quantd.json").read_bytes() for name in ("one", "two"))
    assert one == two
