"""Scales fitted to codes: against float64, and never for the worse."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantd_server.kernels import uniform_grid
from quantd_server.kernels.scale_refit import refit_scales


def problem(seed: int, rows: int, columns: int, size: int, *, sym: bool):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(4 * columns, columns, generator=generator)
    inputs += inputs.roll(1, dims=1)  # neighbours are correlated
    inputs *= torch.rand(columns, generator=generator) * 3
    weight = torch.randn(rows, columns, generator=generator) * 0.05
    values = uniform_grid.in_groups(weight, size)
    grid = uniform_grid.fit(values, bits=3, sym=sym)
    codes = uniform_grid.quantize(values, grid, 3).flatten(0, 1).T
    g_idx = (torch.arange(columns) // size).to(torch.int32)
    return weight, codes, grid.scale.T, grid.zero.to(torch.uint8).T, g_idx, inputs.T @ inputs


def loss(weight, codes, scales, zeros, g_idx, gram) -> torch.Tensor:
    """Of each row, in float64."""
    index = g_idx.long()
    steps = codes.double() - zeros.double()[:, index]
    difference = weight.double() - steps * scales.double()[:, index]
    return ((difference @ gram.double()) * difference).sum(dim=1)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 40),
    groups=st.integers(1, 5),
    size=st.sampled_from([16, 32]),
    sym=st.booleans(),
)
def test_no_row_loses_more_than_before(seed, rows, groups, size, sym):
    given_problem = problem(seed, rows, groups * size, size, sym=sym)
    weight, codes, scales, zeros, g_idx, gram = given_problem
    refitted = refit_scales(*given_problem, damp_percent=0.0)
    before = loss(weight, codes, scales, zeros, g_idx, gram)
    after = loss(weight, codes, refitted, zeros, g_idx, gram)
    assert (after <= before * (1 + 1e-3)).all()
    assert torch.equal(refitted, refitted.to(torch.float16).float())
    assert (refitted > 0).all()


def test_one_group_gets_the_least_squares_solution():
    weight, codes, scales, zeros, g_idx, gram = problem(1, 12, 32, 32, sym=True)
    refitted = refit_scales(weight, codes, scales, zeros, g_idx, gram, damp_percent=0.0)
    steps = codes.double() - zeros.double()[:, g_idx.long()]
    weighed = steps @ gram.double()
    expected = (weighed * weight.double()).sum(dim=1) / (weighed * steps).sum(dim=1)
    assert refitted[:, 0].double() == pytest.approx(expected, rel=2**-10)


def test_groups_are_those_of_the_index():
    """Columns of a group may lie anywhere."""
    weight, codes, scales, zeros, g_idx, gram = problem(2, 8, 96, 32, sym=False)
    order = torch.randperm(96, generator=torch.Generator().manual_seed(3))
    natural = refit_scales(weight, codes, scales, zeros, g_idx, gram)
    moved = refit_scales(
        weight[:, order], codes[:, order], scales, zeros, g_idx[order], gram[order][:, order]
    )
    torch.testing.assert_close(moved, natural, rtol=2**-9, atol=0.0)


def test_without_data_scales_stay():
    weight, codes, scales, zeros, g_idx, gram = problem(4, 8, 64, 32, sym=True)
    refitted = refit_scales(weight, codes, scales, zeros, g_idx, torch.zeros_like(gram))
    assert torch.equal(refitted, scales)
