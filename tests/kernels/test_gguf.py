"""Blocks byte for byte against ggml's C library, decoded values bit for bit against gguf-py."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf.quants
import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quantd_server.errors import QuantdError
from quantd_server.kernels.gguf import (
    TYPES,
    dequantize,
    ggml_library,
    quantize,
    squared_error,
)

Values = npt.NDArray[np.float32]
Blocks = npt.NDArray[np.uint8]

NAMES = list(TYPES)
COLUMNS = 768
GGML_ABORTS_ABOVE = {"IQ3_S": 1e11}


def rows_of_many_kinds() -> dict[str, Values]:
    """Rows that reach the corners of the searches, by what is special about them."""
    generator = np.random.default_rng(1)

    def normal(scale: float = 0.02) -> npt.NDArray[np.float64]:
        return generator.normal(0, scale, (5, COLUMNS))

    one_sided = np.abs(normal())
    constant_sub_blocks = normal()
    constant_sub_blocks[:, :32] = 0.5
    constant_sub_blocks[:, 64:80] = -0.25
    sparse = normal()
    sparse[:, ::3] = 0
    sparse[:, 1::6] = -0.0
    tiny_sub_blocks = normal()
    tiny_sub_blocks[:, 96:128] *= 1e-9
    kinds = {
        "normal": normal(),
        "heavy_tailed": generator.standard_cauchy((5, COLUMNS)),
        "positive": one_sided,
        "negative": -one_sided,
        "zeros": np.zeros((2, COLUMNS)),
        "minus_zeros": np.where(normal() > 0, 0.0, -0.0),
        "constant": np.full((2, COLUMNS), 0.3),
        "constant_sub_blocks": constant_sub_blocks,
        "few_levels": np.round(normal(1.0)),
        "sparse": sparse,
        "tiny_sub_blocks": tiny_sub_blocks,
        "wild_scales": normal() * 10 ** generator.uniform(-12, 9, (5, COLUMNS)),
        "below_epsilon": normal(1e-15),
        "smallest_float16": normal(1e-7),
        "float16_overflow": normal(1e6),
        "denormal": normal(1e-39),
        "smallest_denormal": normal(3e-45),
        "powers_of_two": 2.0 ** generator.integers(-30, 30, (5, COLUMNS)),
        "below_powers_of_two": 2.0 ** generator.integers(-30, 30, (5, COLUMNS)) * (1 - 2**-24),
        "large": normal(1e30),
        "largest": np.clip(normal(3e38), -3.4e38, 3.4e38),
    }
    return {kind: np.ascontiguousarray(rows, np.float32) for kind, rows in kinds.items()}


ROWS = rows_of_many_kinds()


def blocks_of(values: Values, name: str, importance: Values | None = None) -> Blocks:
    blocks = np.full((len(values), TYPES[name].row_bytes(values.shape[1])), 0xA5, np.uint8)
    quantize(values, name, blocks, importance)
    return blocks


def ggml_blocks_of(values: Values, name: str, importance: Values | None = None) -> Blocks:
    blocks = np.full((len(values), TYPES[name].row_bytes(values.shape[1])), 0x5A, np.uint8)
    ggml_library.quantize(values, name, blocks, importance)
    return blocks


def assert_same_blocks(values: Values, name: str) -> None:
    shape = TYPES[name]
    ours = blocks_of(values, name).reshape(-1, shape.bytes)
    theirs = ggml_blocks_of(values, name).reshape(-1, shape.bytes)
    different = np.nonzero((ours != theirs).any(axis=1))[0]
    if different.size:
        worst = different[0]
        weights = values.reshape(-1, shape.elements)[worst]
        pytest.fail(
            f"{different.size} of {len(ours)} blocks differ, first {worst}:\n"
            f"ours  {ours[worst].tobytes().hex()}\n"
            f"ggml  {theirs[worst].tobytes().hex()}\nweights {weights.tolist()}"
        )


def reference_values(blocks: Blocks, name: str) -> Values:
    with np.errstate(all="ignore"):
        decoded = gguf.quants.dequantize(blocks, GGMLQuantizationType[name])
    return np.asarray(decoded, np.float32)


def assert_same_bits(left: Values, right: Values) -> None:
    """Equal bits; any NaN equals any other, because their payloads are not part of a format."""
    equal = (left.view(np.uint32) == right.view(np.uint32)) | (np.isnan(left) & np.isnan(right))
    assert equal.all()


def test_block_shapes_are_those_of_gguf_py() -> None:
    for name, shape in TYPES.items():
        assert tuple(shape) == GGML_QUANT_SIZES[GGMLQuantizationType[name]]
        assert ggml_library.TYPE_IDS[name] == GGMLQuantizationType[name]


def test_block_shapes_need_neither_numpy_nor_numba() -> None:
    code = (
        "import sys; from quantd_server.kernels.gguf import TYPES; "
        "assert TYPES['Q4_K'].row_bytes(512) == 288; "
        "print(sorted({'numpy', 'numba', 'torch'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_those_of_ggml(name: str, kind: str) -> None:
    values = ROWS[kind]
    if np.abs(values).max() > GGML_ABORTS_ABOVE.get(name, np.inf):
        with pytest.raises(QuantdError, match="magnitude"):
            blocks_of(values, name)
    else:
        assert_same_blocks(values, name)


SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-15, -1e-15, 1e-38, 1e-45, 65504.0, 65520.0, 1e5, -3e-8]


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    values=hnp.arrays(
        np.float32,
        (1, 256),
        elements=st.one_of(
            st.floats(-4, 4, width=32),
            st.floats(-1e10, 1e10, width=32),
            st.sampled_from([float(np.float32(x)) for x in SPECIAL]),
        ),
    ),
    scale=st.sampled_from([1.0, 1e-3, 1e-20, 1e-37]),
)
def test_generated_blocks_are_those_of_ggml(name: str, values: Values, scale: float) -> None:
    assert_same_blocks(values * np.float32(scale), name)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    seed=st.integers(0, 2**32 - 1),
    levels=st.integers(1, 40),
    spread=st.floats(0, 12),
)
def test_random_blocks_are_those_of_ggml(name: str, seed: int, levels: int, spread: float) -> None:
    """Whole tiles of rounded weights: ties are frequent, and magnitudes differ by column."""
    generator = np.random.default_rng(seed)
    weights = np.round(generator.normal(0, levels / 3, (6, 1024))) / levels
    weights *= 10 ** generator.uniform(-spread, 0, 1024)
    assert_same_blocks(weights.astype(np.float32), name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [1, 2, 3, 9])
def test_bytes_do_not_depend_on_how_rows_are_cut(name: str, rows: int) -> None:
    values = np.random.default_rng(rows).normal(0, 1, (rows, 768)).astype(np.float32)
    whole = blocks_of(values, name)
    for row in range(rows):
        assert (blocks_of(values[row : row + 1], name) == whole[row]).all()


@pytest.mark.parametrize("name", NAMES)
def test_threads_may_work_at_once(name: str) -> None:
    values = np.random.default_rng(2).normal(0, 1, (64, 1024)).astype(np.float32)
    expected = blocks_of(values, name)
    result = np.empty_like(expected)
    with ThreadPoolExecutor(2) as pool:
        list(
            pool.map(
                lambda start: quantize(values[start : start + 8], name, result[start : start + 8]),
                range(0, 64, 8),
            )
        )
    assert (result == expected).all()


@pytest.mark.parametrize("name", NAMES)
def test_importance_gives_the_blocks_of_ggml(name: str) -> None:
    generator = np.random.default_rng(3)
    values = generator.normal(0, 0.02, (4, 512)).astype(np.float32)
    importance = generator.chisquare(2, 512).astype(np.float32)
    importance[64:96] = 0
    ours = blocks_of(values, name, importance)
    assert (ours == ggml_blocks_of(values, name, importance)).all()


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("name", NAMES)
def test_decoded_values_are_those_of_gguf_py(name: str, kind: str) -> None:
    values = ROWS[kind]
    if np.abs(values).max() > GGML_ABORTS_ABOVE.get(name, np.inf):
        pytest.skip("no blocks of these values exist")
    blocks = blocks_of(values, name)
    out = np.empty_like(values)
    dequantize(blocks, name, out)
    assert_same_bits(out, reference_values(blocks, name))


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(NAMES), seed=st.integers(0, 2**32 - 1))
def test_any_bytes_decode_as_gguf_py_decodes_them(name: str, seed: int) -> None:
    shape = TYPES[name]
    count = 4 if shape.elements > 1 else 1024
    blocks = np.random.default_rng(seed).integers(0, 256, (3, count * shape.bytes), np.uint8)
    out = np.empty((3, count * shape.elements), np.float32)
    dequantize(blocks, name, out)
    assert_same_bits(out, reference_values(blocks, name))


def test_every_float16_decodes_and_encodes_as_numpy_does() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(1, -1)
    out = np.empty(halves.shape, np.float32)
    dequantize(halves.view(np.uint8), "F16", out)
    assert_same_bits(out, halves.astype(np.float32))
    finite = out[:, np.isfinite(out[0])]
    # All values, all midpoints between neighbours, and their neighbours.
    middle = (finite[:, 1:] + finite[:, :-1]) / np.float32(2)
    for rows in (finite, middle, np.nextafter(middle, 0), np.nextafter(middle, np.inf)):
        values = np.ascontiguousarray(rows, np.float32)
        with np.errstate(over="ignore"):
            expected = values.astype(np.float16).view(np.uint8)
        assert (blocks_of(values, "F16") == expected).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [1, 37])
def test_squared_error_is_the_float64_sum(name: str, rows: int) -> None:
    values = np.random.default_rng(4).normal(0, 0.02, (rows, 1792)).astype(np.float32)
    blocks = blocks_of(values, name)
    difference = values.astype(np.float64) - reference_values(blocks, name)
    error = squared_error(values, blocks, name)
    assert isinstance(error, float)
    assert error == pytest.approx(float((difference**2).sum()), rel=1e-12, abs=0)


def test_empty_matrices_are_allowed() -> None:
    values = np.empty((0, 256), np.float32)
    blocks = np.empty((0, 144), np.uint8)
    quantize(values, "Q4_K", blocks)
    dequantize(blocks, "Q4_K", values)
    assert squared_error(values, blocks, "Q4_K") == 0.0


def floats(*shape: int) -> Values:
    return np.zeros(shape, np.float32)


def octets(*shape: int) -> Blocks:
    return np.zeros(shape, np.uint8)


@pytest.mark.parametrize(
    ("values", "name", "out", "importance", "message"),
    [
        (floats(2, 256), "Q9_K", octets(2, 144), None, "'Q9_K', allowed: F32, F16"),
        (floats(2, 320), "Q4_K", octets(2, 180), None, "320 columns.*multiple of 256"),
        (floats(2, 48), "Q4_0", octets(2, 27), None, "48 columns.*multiple of 32"),
        (floats(256), "Q4_K", octets(1, 144), None, "values: got float32 in 1 dim"),
        (floats(2, 256).astype(np.float64), "Q4_K", octets(2, 144), None, "got float64"),
        ([[0.0] * 32], "Q8_0", octets(1, 34), None, "values: got list"),
        (floats(256, 2).T, "Q4_K", octets(2, 144), None, "values: got strides"),
        (floats(2, 256), "Q4_K", octets(2, 143), None, r"out: got shape \(2, 143\).*\(2, 144\)"),
        (floats(2, 256), "Q4_K", octets(1, 144), None, r"out: got shape \(1, 144\)"),
        (floats(2, 256), "Q4_K", octets(2, 288)[:, ::2], None, "out: got strides"),
        (floats(2, 256), "Q4_K", octets(2, 144).view(np.int8), None, "out: got int8"),
        (floats(2, 256), "Q4_K", octets(2, 144), floats(255), r"importance: got shape \(255,\)"),
        (floats(2, 256), "Q4_K", octets(2, 144), floats(256) - 1, "importance: got negative"),
        (floats(2, 256), "Q4_K", octets(2, 144), floats(256) + np.nan, "importance: got neg"),
        (floats(2, 256), "Q4_K", octets(2, 144), np.zeros(256), "importance: got float64"),
    ],
)
def test_wrong_arguments_of_quantize(
    values: Values, name: str, out: Blocks, importance: Values | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        quantize(values, name, out, importance)


@pytest.mark.parametrize(
    ("values", "importance"),
    [(floats(2, 256) + 1e12, None), (floats(2, 256) + 1e9, floats(256) + 1e20)],
)
def test_weights_for_which_ggml_would_abort_are_refused(
    values: Values, importance: Values | None
) -> None:
    with pytest.raises(QuantdError, match="magnitude") as refused:
        quantize(values, "IQ3_S", octets(2, 110), importance)
    assert refused.value.reason == "WEIGHTS_OUT_OF_RANGE"


def test_read_only_output_is_refused() -> None:
    out = octets(1, 34)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        quantize(floats(1, 32), "Q8_0", out)


def test_unaligned_arrays_are_refused() -> None:
    values = np.zeros(4 * 32 + 1, np.uint8)[1:].view(np.float32).reshape(1, 32)
    with pytest.raises(ValueError, match="aligned"):
        quantize(values, "Q8_0", octets(1, 34))


def test_read_only_input_is_allowed() -> None:
    values = np.random.default_rng(5).normal(0, 1, (1, 256)).astype(np.float32)
    expected = blocks_of(values, "Q8_0")
    values.flags.writeable = False
    assert (blocks_of(values, "Q8_0") == expected).all()


@pytest.mark.parametrize(
    ("blocks", "name", "out", "message"),
    [
        (octets(2, 143), "Q4_K", floats(2, 256), "143 bytes.*multiple of 144"),
        (octets(2, 144), "Q4_K", floats(2, 255), r"got shape \(2, 255\).*\(2, 256\)"),
        (octets(2, 144), "q4_k", floats(2, 256), "'q4_k', allowed"),
        (octets(144), "Q4_K", floats(2, 256), "blocks: got uint8 in 1 dim"),
    ],
)
def test_wrong_arguments_of_decoding(blocks: Blocks, name: str, out: Values, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dequantize(blocks, name, out)
    with pytest.raises(ValueError, match=message.replace("out", "values")):
        squared_error(out, blocks, name)


def safetensors_matrices(path: Path) -> dict[str, Values]:
    """A few bfloat16 matrices of different roles, decoded by shifting, without the file's room."""
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        found = {}
        for role in ("embed_tokens", "q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"):
            name = next(name for name in header if role in name and "norm" not in name)
            entry = header[name]
            assert entry["dtype"] == "BF16"
            begin, end = entry["data_offsets"]
            columns = entry["shape"][1]
            file.seek(8 + size + begin)
            bits = np.frombuffer(file.read(min(end - begin, 256 * columns * 2)), np.uint16)
            found[role] = (bits.astype(np.uint32) << 16).view(np.float32).reshape(-1, columns)
    return found


@pytest.mark.skipif(
    "QUANTD_TEST_MODEL" not in os.environ, reason="QUANTD_TEST_MODEL names no checkpoint folder"
)
@pytest.mark.parametrize("name", NAMES)
def test_real_weights_give_the_blocks_of_ggml(name: str) -> None:
    path = Path(os.environ["QUANTD_TEST_MODEL"], "model.safetensors")
    elements = TYPES[name].elements
    for values in safetensors_matrices(path).values():
        rows = values.reshape(-1, elements) if values.shape[1] % elements else values
        assert_same_blocks(np.ascontiguousarray(rows[: len(rows) // 8]), name)
