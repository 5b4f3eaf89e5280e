"""The packed formats of GPTQ and AWQ, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantd_server.kernels import code_stream
from quantd_server.kernels.awq import packing as awq
from quantd_server.kernels.gptq import packing as gptq


def random_weight(rows: int, columns: int, groups: int, bits: int, lowest_zero: int, seed: int):
    rng = np.random.default_rng(seed)
    return (
        rng.integers(0, 1 << bits, (rows, columns), np.uint8),
        rng.random((rows, groups)).astype(np.float16).astype(np.float32),
        rng.integers(lowest_zero, 1 << bits, (rows, groups), np.uint8),
    )


def words_of_bits(values: list[int], bits: int) -> list[int]:
    """A stream of bits, the lowest of the first value first, in signed 32-bit words."""
    stream = [(value >> bit) & 1 for value in values for bit in range(bits)]
    words = [
        sum(bit << position for position, bit in enumerate(stream[first : first + 32]))
        for first in range(0, len(stream), 32)
    ]
    return [word - (1 << 32) if word >= 1 << 31 else word for word in words]


# Columns of a run of eight from the lowest to the highest four bits of a word.
AWQ_COLUMNS = [0, 2, 4, 6, 1, 3, 5, 7]


@pytest.mark.parametrize("v2", [False, True])
@pytest.mark.parametrize("bits", gptq.BITS)
def test_gptq_words(bits, v2):
    codes, scales, zeros = random_weight(64, 96, 3, bits, 0 if v2 else 1, seed=bits)
    g_idx = np.random.default_rng(0).permutation(96).astype(np.int32) // 32
    packed = gptq.pack(codes, scales, zeros, g_idx, bits=bits, v2=v2)
    assert packed.qweight.dtype == packed.qzeros.dtype == packed.g_idx.dtype == np.int32
    assert packed.scales.dtype == np.float16
    assert all(array.flags.c_contiguous for array in packed)
    for row in range(64):
        assert packed.qweight[:, row].tolist() == words_of_bits(codes[row].tolist(), bits)
    for group in range(3):
        stored = [int(zero) - (0 if v2 else 1) for zero in zeros[:, group]]
        assert packed.qzeros[group].tolist() == words_of_bits(stored, bits)
    np.testing.assert_array_equal(packed.scales.T, scales.astype(np.float16))
    np.testing.assert_array_equal(packed.g_idx, g_idx)
    unpacked = gptq.unpack(packed, bits=bits, v2=v2)
    for got, expected in zip(unpacked, (codes, scales, zeros, g_idx), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_symmetric_zero_words():
    """The words that GPTQModel writes for symmetric weights (docs of both formats)."""
    codes, scales = np.zeros((32, 32), np.uint8), np.ones((32, 1), np.float32)
    zeros, g_idx = np.full((32, 1), 8, np.uint8), np.zeros(32, np.int32)
    v1 = gptq.pack(codes, scales, zeros, g_idx, bits=4, v2=False)
    v2 = gptq.pack(codes, scales, zeros, g_idx, bits=4, v2=True)
    assert set(v1.qzeros.view(np.uint32).flat) == {0x77777777}
    assert set(v2.qzeros.view(np.uint32).flat) == {0x88888888}


def test_three_bit_codes_that_cross_words():
    codes = np.zeros((32, 1), np.uint8)
    codes[10], codes[21] = 0b110, 0b011
    words = code_stream.pack_rows(codes, 3).view(np.uint32)[:, 0].tolist()
    assert words == [0b10 << 30, 1 | 1 << 31, 1]


def test_awq_words():
    codes, scales, zeros = random_weight(24, 6, 3, 4, 0, seed=1)
    packed = awq.pack(codes, scales, zeros)
    assert packed.qweight.shape == (6, 3)
    assert packed.qzeros.shape == packed.scales.shape[:1] + (3,) == (3, 3)
    for packed_words, values in ((packed.qweight, codes), (packed.qzeros, zeros)):
        for row, words in enumerate(packed_words.tolist()):
            fields = [
                int(values[8 * run + column, row]) for run in range(3) for column in AWQ_COLUMNS
            ]
            assert words == words_of_bits(fields, 4)
    for got, expected in zip(awq.unpack(packed), (codes, scales, zeros), strict=True):
        np.testing.assert_array_equal(got, expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 40), st.sampled_from(gptq.BITS), st.booleans())
def test_any_shape_comes_back(runs, columns, bits, contiguous):
    codes = np.random.default_rng(columns).integers(0, 1 << bits, (32 * runs, columns), np.uint8)
    given_codes = codes if contiguous else np.asfortranarray(codes)
    words = code_stream.pack_rows(given_codes, bits)
    assert words.shape == (runs * bits, columns)
    np.testing.assert_array_equal(code_stream.unpack_rows(words, bits), codes)


def test_refusals():
    codes, scales, zeros = random_weight(64, 96, 3, 4, 0, seed=0)
    g_idx = np.arange(96, dtype=np.int32) // 32
    zeros[5, 1] = 0
    with pytest.raises(ValueError, match="use gptq_v2"):
        gptq.pack(codes, scales, zeros, g_idx, bits=4, v2=False)
    with pytest.raises(ValueError, match="bits is 5"):
        gptq.pack(codes, scales, zeros, g_idx, bits=5, v2=True)
    with pytest.raises(ValueError, match="multiples of 32"):
        gptq.pack(codes[:, :95], scales, zeros, g_idx[:95], bits=4, v2=True)
    with pytest.raises(ValueError, match="multiples of 32"):
        gptq.pack(codes[:40], scales[:40], zeros[:40], g_idx, bits=4, v2=True)
    with pytest.raises(ValueError, match="do not fit"):
        gptq.pack(codes, scales[:, :2], zeros, g_idx, bits=4, v2=True)
    with pytest.raises(ValueError, match="multiple of 8"):
        awq.pack(codes[:4], scales[:4], zeros[:4])
    with pytest.raises(ValueError, match="do not fit"):
        awq.pack(codes[:, :95], scales, zeros)
    with pytest.raises(ValueError, match="multiple of 32"):
        code_stream.pack_rows(codes[:33], 4)
    with pytest.raises(ValueError, match="multiples of 3 words"):
        code_stream.unpack_rows(np.zeros((4, 1), np.int32), 3)
