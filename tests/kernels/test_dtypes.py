"""float32 <-> float16 / bfloat16 against numpy and torch, and the scans against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quantd_server.kernels import dtypes

ALL_WORDS = np.arange(65536, dtype=np.uint16)
any_float32 = hnp.arrays(np.uint32, st.integers(0, 300)).map(lambda bits: bits.view(np.float32))
finite_float32 = hnp.arrays(
    np.float32, st.integers(1, 300), elements=st.floats(width=32, allow_nan=False)
)


def float32_of(raw: np.ndarray, dtype: dtypes.FloatDtype, size: int) -> np.ndarray:
    out = np.empty(size, np.float32)
    dtypes.to_float32(raw, dtype, out)
    return out


def test_every_float16_has_its_exact_value() -> None:
    expected = ALL_WORDS.view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(float32_of(ALL_WORDS, "F16", 65536), expected)
    signs = np.signbit(float32_of(ALL_WORDS, "F16", 65536))
    np.testing.assert_array_equal(signs, np.signbit(expected))


def test_every_bfloat16_has_its_exact_value() -> None:
    expected = torch.from_numpy(ALL_WORDS.view(np.int16)).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(float32_of(ALL_WORDS, "BF16", 65536), expected)


def test_every_finite_word_survives_a_round_trip() -> None:
    for dtype in ("F16", "BF16"):
        values = float32_of(ALL_WORDS, dtype, 65536)
        finite = np.isfinite(values)
        back = dtypes.from_float32(values, dtype).view(np.uint16)
        np.testing.assert_array_equal(back[finite], ALL_WORDS[finite])


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_halfway_between_neighbours_rounds_to_even(dtype: dtypes.FloatDtype) -> None:
    values = float32_of(ALL_WORDS, dtype, 65536)
    finite = values[np.isfinite(values)].astype(np.float64)
    halfway = ((finite[:-1] + finite[1:]) / 2).astype(np.float32)
    below, above = np.nextafter(halfway, -np.inf), np.nextafter(halfway, np.inf)
    assert_rounds_like_torch(np.concatenate([halfway, below, above]), dtype)


def assert_rounds_like_torch(values: np.ndarray, dtype: dtypes.FloatDtype) -> None:
    torch_dtype = torch.float16 if dtype == "F16" else torch.bfloat16
    expected = torch.from_numpy(values.copy()).to(torch_dtype)
    got = dtypes.from_float32(values, dtype).view(np.uint16)
    got_tensor = torch.from_numpy(got.view(np.int16).copy()).view(torch_dtype)
    number = ~torch.isnan(expected)
    assert torch.equal(torch.isnan(got_tensor), ~number)
    assert torch.equal(got_tensor[number].view(torch.int16), expected[number].view(torch.int16)), (
        f"{dtype} differs from torch"
    )


@settings(max_examples=200, deadline=None)
@given(values=any_float32, dtype=st.sampled_from(["F16", "BF16"]))
def test_any_float32_rounds_as_in_torch(values: np.ndarray, dtype: dtypes.FloatDtype) -> None:
    assert_rounds_like_torch(values, dtype)


@settings(max_examples=50, deadline=None)
@given(values=any_float32)
def test_float32_passes_unchanged(values: np.ndarray) -> None:
    raw = dtypes.from_float32(values, "F32")
    assert raw.tobytes() == values.tobytes()
    assert float32_of(raw, "F32", values.size).tobytes() == values.tobytes()


def test_from_float32_writes_into_the_given_array() -> None:
    out = np.zeros(4, np.uint8)
    assert dtypes.from_float32(np.array([1.0, -2.0], np.float32), "BF16", out) is out
    assert out.tobytes() == bytes.fromhex("803f00c0")
    with pytest.raises(ValueError, match="need 8"):
        dtypes.from_float32(np.array([1.0, -2.0], np.float32), "F32", out)


def test_bytes_of_any_item_type_are_read() -> None:
    words = np.array([0x3F80, 0xC000], np.uint16)
    for raw in (words, words.view(np.uint8), words.view(np.uint8).reshape(2, 2)):
        np.testing.assert_array_equal(float32_of(raw, "BF16", 2), [1.0, -2.0])


def test_read_only_memory_is_read() -> None:
    raw = np.frombuffer(bytes.fromhex("803f00c0"), np.uint8)
    np.testing.assert_array_equal(float32_of(raw, "BF16", 2), [1.0, -2.0])
    values = np.frombuffer(bytes.fromhex("0000803f0000c07f"), np.float32)
    assert dtypes.first_nonfinite(values) == 1
    assert dtypes.from_float32(values, "BF16").tobytes() == bytes.fromhex("803fc07f")


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="F8"):
        float32_of(ALL_WORDS, "F8_E4M3", 65536)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="writes F32, F16 or BF16"):
        dtypes.from_float32(np.zeros(1, np.float32), "I8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="room for 3"):
        float32_of(ALL_WORDS, "F16", 3)


@settings(max_examples=100, deadline=None)
@given(values=any_float32)
def test_first_nonfinite_is_the_first(values: np.ndarray) -> None:
    where = np.flatnonzero(~np.isfinite(values))
    assert dtypes.first_nonfinite(values) == (where[0] if where.size else -1)


@pytest.mark.parametrize("position", [0, 4095, 4096, 10_000])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_first_nonfinite_in_a_long_array(position: int, bad: float) -> None:
    values = np.full(10_001, 3e38, np.float32)
    assert dtypes.first_nonfinite(values) == -1
    values[position:] = bad
    assert dtypes.first_nonfinite(values) == position


def test_first_float16_overflow_is_where_float16_becomes_infinite() -> None:
    largest = np.nextafter(np.float32(65520), np.float32(0))
    values = np.array([1, -largest, largest], np.float32)
    assert dtypes.first_float16_overflow(values) == -1
    values[1] = -65520
    assert dtypes.first_float16_overflow(values) == 1
    assert np.isfinite(largest.astype(np.float16))


@settings(max_examples=100, deadline=None)
@given(values=finite_float32)
def test_sum_of_squares(values: np.ndarray) -> None:
    expected = np.sum(values.astype(np.float64) ** 2)
    assert dtypes.sum_of_squares(values) == pytest.approx(expected, rel=1e-12)
