"""Divided norms and rescaled weights: what is divided and what is multiplied make up for each
other.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantd_server.methods.rescaling import divided_norm, rescaled
from quantd_server.methods.scale_folding import Folding

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

factors = st.floats(-100, 100, width=32)
scales = st.floats(2.0**-10, 2.0**10, width=32)


@given(
    st.lists(st.tuples(factors, scales), min_size=1, max_size=40),
    st.sampled_from(DTYPES),
    st.booleans(),
)
def test_a_divided_norm_times_its_scales_is_the_norm(pairs, dtype, plus_one) -> None:
    weight = torch.tensor([factor for factor, _ in pairs]).to(dtype)
    wanted = torch.tensor([scale for _, scale in pairs])
    norm, exact = divided_norm(weight, wanted, plus_one=plus_one)
    assert norm.dtype == dtype and exact.dtype == torch.float32
    assert torch.isfinite(norm).all() and torch.isfinite(exact).all() and (exact > 0).all()
    # As models compute: Llama multiplies by the weight, Gemma by 1 + weight, in float32.
    offset = 1.0 if plus_one else 0.0
    before = weight.float() + offset
    after = norm.float() + offset
    np.testing.assert_allclose((after * exact).double(), before.double(), rtol=3e-7, atol=0)


@given(
    st.lists(st.tuples(st.floats(0.5, 50, width=32), scales), min_size=1, max_size=40),
    st.sampled_from(DTYPES),
)
def test_scales_move_no_further_than_the_dtype_rounds(pairs, dtype) -> None:
    weight = torch.tensor([factor for factor, _ in pairs]).to(dtype)
    wanted = torch.tensor([scale for _, scale in pairs])
    _, exact = divided_norm(weight, wanted, plus_one=False)
    # A quotient below float16's normal range is stored with fewer digits.
    info = torch.finfo(dtype)
    quotient = weight.float() / wanted
    rounding = torch.maximum(quotient * info.eps, torch.tensor(info.smallest_normal * info.eps))
    assert ((exact / wanted - 1).abs() <= rounding / quotient + 1e-6).all()


def test_channels_that_cannot_be_divided_stay() -> None:
    weight = torch.tensor([0.0, 60000.0, 2.0**-24, 1.0], dtype=torch.float16)
    wanted = torch.tensor([4.0, 2.0**-8, 16.0, 4.0])
    norm, exact = divided_norm(weight, wanted, plus_one=False)
    # Nothing to divide; too large; too small.
    assert norm.tolist() == [0.0, 60000.0, 2.0**-24, 0.25]
    assert exact.tolist() == [1.0, 1.0, 1.0, 4.0]


def test_a_norm_that_adds_one_to_minus_one() -> None:
    norm, exact = divided_norm(torch.tensor([-1.0]), torch.tensor([4.0]), plus_one=True)
    assert norm.tolist() == [-1.0] and exact.tolist() == [1.0]


ROWS = Folding(block=0, previous="up", divided="ROWS", channels=2, first_row=1, following=("down",))


def test_rows_are_divided_and_columns_multiplied() -> None:
    weight = torch.arange(1.0, 9.0).reshape(4, 2)
    kept = weight.clone()
    result = rescaled(weight, (ROWS, torch.tensor([2.0, 4.0])), torch.tensor([10.0, 1.0]))
    assert result.tolist() == [[10, 2], [15, 2], [12.5, 1.5], [70, 8]]
    assert torch.equal(weight, kept)


def test_a_bias_is_divided_where_its_rows_are() -> None:
    bias = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.bfloat16)
    result = rescaled(bias, (ROWS, torch.tensor([2.0, 4.0])), None)
    assert result.dtype == torch.bfloat16
    assert result.tolist() == [1.0, 1.0, 1.0, 8.0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_scales_nothing_changes(dtype) -> None:
    weight = torch.randn(5, 3).to(dtype)
    assert torch.equal(rescaled(weight, None, None), weight)
