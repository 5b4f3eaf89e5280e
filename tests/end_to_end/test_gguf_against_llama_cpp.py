"""Our .gguf files against llama.cpp's own quantizer: both made from the same checkpoint, ours in
one pass, llama.cpp's from our BF16 file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize
from numpy.typing import NDArray
from tests import llama_cpp, tiny_models
from tests.methods.gguf_files import llama
from tests.quantizing import planned, quantize, real_model, specification

from quantd_server.methods.gguf.file_types import FILE_TYPES

TEXT = (
    "The Eiffel Tower is a wrought-iron lattice tower in Paris, France. It is named after the "
    "engineer Gustave Eiffel, whose company designed and built the tower from 1887 to 1889."
)
REAL_TYPES = ["Q8_0", "Q4_0", "Q5_1", "Q4_K_M", "Q6_K", "Q3_K_M", "IQ4_XS"]
NEEDS_IMATRIX = ["IQ3_XS", "Q2_K_S"]


class GgufFile:
    """A file as the reference's reader sees it."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self.metadata: dict[str, Any] = {
            name: field.contents()
            for name, field in reader.fields.items()
            if not name.startswith("GGUF.")
        }
        self.types = {tensor.name: tensor.tensor_type for tensor in reader.tensors}
        self.shapes = {tensor.name: tuple(tensor.shape) for tensor in reader.tensors}
        self._data = {tensor.name: tensor.data for tensor in reader.tensors}

    def blocks(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a tensor, one row a block."""
        _, size = gguf.GGML_QUANT_SIZES[self.types[name]]
        return self._data[name].reshape(-1).view(np.uint8).reshape(-1, size)

    def values(self, name: str) -> NDArray[np.float64]:
        return dequantize(self._data[name], self.types[name]).astype(np.float64).reshape(-1)


def squared_error(file: GgufFile, source: GgufFile, name: str) -> float:
    return float(np.square(file.values(name) - source.values(name)).sum())


def assert_same_data(ours: GgufFile, theirs: GgufFile, source: GgufFile) -> None:
    """Equal types and shapes; equal bytes, or where the builds round differently, at least 95 % of
    the blocks and no larger an error.
    """
    assert ours.types == theirs.types
    assert ours.shapes == theirs.shapes
    differing = {}
    for name in theirs.types:
        same = (ours.blocks(name) == theirs.blocks(name)).all(axis=1)
        if same.all():
            continue
        differing[name] = share = same.mean()
        errors = squared_error(ours, source, name), squared_error(theirs, source, name)
        print(f"{name} {theirs.types[name].name}: {share:.4%} of blocks equal, errors {errors}")
        assert share >= 0.95, name
        assert errors[0] <= errors[1], name
    if differing:
        worst = min(differing, key=differing.__getitem__)
        print(f"{len(differing)} tensors differ; worst {worst}: {differing[worst]:.4%} equal")


def mean_loss(model: llama_cpp.Model, tokens: list[int]) -> float:
    """Mean negative log-likelihood of the tokens after the first, in nats."""
    rows = model.logits(tokens[:-1]).astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    chosen = rows[np.arange(len(rows)), tokens[1:]]
    return float((np.log(np.exp(rows).sum(axis=1)) - chosen).mean())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> tuple[Path, Path]:
    """A checkpoint whose rows are multiples of 256, and our BF16 file of it."""
    folder = tmp_path_factory.mktemp("tiny")
    source = tiny_models.write(folder / "source", hidden=256, intermediate=512)
    quantize(source, folder / "bf16.gguf", "gguf", {"file_type": "BF16"})
    return source, folder / "bf16.gguf"


@pytest.mark.parametrize("file_type", sorted(set(FILE_TYPES) - set(NEEDS_IMATRIX)))
def test_tiny_model(tmp_path, tiny, file_type) -> None:
    source, unquantized = tiny
    quantize(source, tmp_path / "ours.gguf", "gguf", {"file_type": file_type})
    llama().quantize(unquantized, tmp_path / "theirs.gguf", FILE_TYPES[file_type].id)
    ours, theirs = GgufFile(tmp_path / "ours.gguf"), GgufFile(tmp_path / "theirs.gguf")
    assert_same_data(ours, theirs, GgufFile(unquantized))
    assert ours.metadata == theirs.metadata


@pytest.mark.parametrize("file_type", NEEDS_IMATRIX)
def test_both_refuse_what_needs_an_importance_matrix(tmp_path, tiny, file_type) -> None:
    source, unquantized = tiny
    output = tmp_path / "ours.gguf"
    report = planned(specification(source, output, "gguf", {"file_type": file_type}))
    assert [finding.reason for finding in report.findings] == ["GGUF_IMATRIX_REQUIRED"]
    with pytest.raises(RuntimeError, match=r"imatrix|importance matrix"):
        llama().quantize(unquantized, tmp_path / "theirs.gguf", FILE_TYPES[file_type].id)


@pytest.mark.parametrize("file_type", ["Q8_0", "Q4_K_M", "F16"])
def test_an_unquantized_file_as_source_gives_the_same_bytes(tmp_path, tiny, file_type) -> None:
    source, unquantized = tiny
    config = {"file_type": file_type}
    quantize(source, tmp_path / "direct.gguf", "gguf", config)
    quantize(unquantized, tmp_path / "second.gguf", "gguf", config)
    assert (tmp_path / "direct.gguf").read_bytes() == (tmp_path / "second.gguf").read_bytes()


@pytest.mark.parametrize("dtype", ["F16", "F32"])
@pytest.mark.parametrize("file_type", ["Q8_0", "Q4_K_M"])
def test_other_source_dtypes(tmp_path, dtype, file_type) -> None:
    source = tiny_models.write(tmp_path / "source", dtype=dtype, hidden=256, intermediate=512)
    unquantized = tmp_path / "unquantized.gguf"
    quantize(source, unquantized, "gguf", {"file_type": dtype})
    quantize(source, tmp_path / "ours.gguf", "gguf", {"file_type": file_type})
    llama().quantize(unquantized, tmp_path / "theirs.gguf", FILE_TYPES[file_type].id)
    ours, theirs = GgufFile(tmp_path / "ours.gguf"), GgufFile(tmp_path / "theirs.gguf")
    assert_same_data(ours, theirs, GgufFile(unquantized))
    assert ours.metadata == theirs.metadata


def test_a_sharded_source_gives_the_same_bytes(tmp_path) -> None:
    outputs = []
    for shards in (1, 3):
        source = tiny_models.write(tmp_path / f"source{shards}", shards=shards, hidden=256)
        outputs.append(tmp_path / f"{shards}.gguf")
        quantize(source, outputs[-1], "gguf", {"file_type": "Q4_K_M"})
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_llama_cpp_generates_with_a_tiny_model(tmp_path, tiny) -> None:
    source, _ = tiny
    quantize(source, tmp_path / "ours.gguf", "gguf", {"file_type": "Q4_K_M"})
    with llama().open(tmp_path / "ours.gguf") as model:
        tokens = model.tokenize("the cat")
        assert len(tokens) == 6  # "th" is one token
        assert len(model.greedy(tokens, 5)) == 5


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> tuple[Path, Path, float]:
    """SmolLM2, our BF16 file of it, and its loss on ``TEXT``."""
    source = real_model()
    unquantized = tmp_path_factory.mktemp("real") / "bf16.gguf"
    quantize(source, unquantized, "gguf", {"file_type": "BF16"})
    with llama().open(unquantized) as model:
        return source, unquantized, mean_loss(model, model.tokenize(TEXT))


@pytest.mark.slow
@pytest.mark.parametrize("file_type", REAL_TYPES)
def test_real_model(tmp_path, real, file_type) -> None:
    source, unquantized, loss = real
    config = {"file_type": file_type}
    quantize(source, tmp_path / "ours.gguf", "gguf", config)
    quantize(unquantized, tmp_path / "second.gguf", "gguf", config)
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "second.gguf").read_bytes()
    llama().quantize(unquantized, tmp_path / "theirs.gguf", FILE_TYPES[file_type].id)
    ours, theirs = GgufFile(tmp_path / "ours.gguf"), GgufFile(tmp_path / "theirs.gguf")
    assert_same_data(ours, theirs, GgufFile(unquantized))
    assert ours.metadata == theirs.metadata
    with llama().open(tmp_path / "ours.gguf") as model:
        quantized_loss = mean_loss(model, model.tokenize(TEXT))
        prompt = model.tokenize("The capital of France is")
        text = model.detokenize(model.greedy(prompt, 12))
    print(f"{file_type}: loss {quantized_loss:.4f}, BF16 {loss:.4f}; generated {text!r}")
    assert loss < 3
    assert quantized_loss < loss + 0.5
    assert len(set(text.split())) > 4
