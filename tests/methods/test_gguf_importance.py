"""Quantizing with an importance matrix: the bytes of ggml, and findings where it does not fit."""

from __future__ import annotations

from array import array

import numpy as np
import pytest

from quantd_server.checkpoint.safetensors_header import TensorEntry
from quantd_server.kernels.gguf import TYPES, ggml_library
from quantd_server.methods.base import OutputPart, TensorTask
from quantd_server.methods.gguf.description import ConvertedTensor
from quantd_server.methods.gguf.file_types import TypeChoice
from quantd_server.methods.gguf.importance import Importance
from quantd_server.methods.gguf.method import BlockQuantizer


def task(shape: tuple[int, ...], ggml_type: str, importance: bytes) -> TensorTask:
    count = int(np.prod(shape))
    nbytes = TYPES[ggml_type].row_bytes(count)
    return TensorTask(
        source=TensorEntry(
            name="x", dtype="F32", shape=shape, offset=0, nbytes=4 * count, file="f"
        ),
        target_name="x",
        target_type=ggml_type,
        shape=shape,
        action="QUANTIZE",
        reason="",
        parts=(
            OutputPart(name="x", dtype=ggml_type, shape=shape, file="f", offset=0, nbytes=nbytes),
        ),
        importance=importance,
    )


@pytest.mark.parametrize("ggml_type", ["Q4_K", "Q2_K", "Q4_0", "IQ4_XS"])
@pytest.mark.parametrize("matrices", [1, 3])
def test_rows_are_weighed_by_the_columns_of_their_matrix(ggml_type: str, matrices: int) -> None:
    random = np.random.default_rng(7)
    rows, columns = 5, 512
    weights = random.standard_normal((matrices, rows, columns)).astype(np.float32)
    importance = random.random((matrices, columns)).astype(np.float32)
    shape = (matrices, rows, columns) if matrices > 1 else (rows, columns)
    quantizer = BlockQuantizer(task(shape, ggml_type, importance.tobytes()))
    got = bytearray(TYPES[ggml_type].row_bytes(weights.size))
    flat = weights.reshape(-1)
    step = 2 * quantizer.granularity  # chunks that end within a matrix and span two
    for first in range(0, flat.size, step):
        for _, offset, data in quantizer.quantize(first, flat[first : first + step].copy()).writes:
            got[offset : offset + data.nbytes] = data.tobytes()
    expected = np.empty((matrices * rows, TYPES[ggml_type].row_bytes(columns)), np.uint8)
    for matrix in range(matrices):
        part = slice(matrix * rows, (matrix + 1) * rows)
        ggml_library.quantize(weights[matrix], ggml_type, expected[part], importance[matrix])
    assert bytes(got) == expected.tobytes()


def findings(entries: dict[str, array], choices: dict[str, str]) -> dict[str, tuple[str, ...]]:
    importance = Importance("imatrix.gguf", entries)
    tensors = [
        ConvertedTensor(name=name, source=name, source_dtype="F32", shape=(4, 256))
        for name in choices
    ]
    chosen = [TypeChoice(name=n, ggml_type=t, reason="") for n, t in choices.items()]
    return {found.reason: found.subjects for found in importance.findings(tensors, chosen)}


def test_findings_about_a_matrix_that_does_not_fit() -> None:
    fitting, short = array("f", [1.0] * 256), array("f", [1.0] * 255)
    entries = {"a": fitting, "b": short}
    choices = {"a": "Q4_K", "b": "Q4_K", "c": "Q4_K", "norm": "F32", "token_embd.weight": "Q4_K"}
    assert findings(entries, choices) == {
        "IMATRIX_SIZE_MISMATCH": ("b",),
        "IMATRIX_INCOMPLETE": ("c",),
    }


def test_a_type_that_needs_importance_is_an_error_without() -> None:
    assert findings({}, {"a": "IQ2_XXS"}) == {"GGUF_IMATRIX_REQUIRED": ("a",)}
