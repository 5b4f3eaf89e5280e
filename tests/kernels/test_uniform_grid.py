"""The uniform grid that GPTQ and AWQ share: what is chosen is what readers compute."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quantd_server.kernels import uniform_grid

EVERY = [(bits, sym) for bits in (2, 3, 4, 8) for sym in (True, False)]


def random_values(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.05


@pytest.mark.parametrize(("bits", "sym"), EVERY)
def test_codes_and_grids_as_the_format_says(bits, sym):
    values = random_values(5, 16, 7)
    grid = uniform_grid.fit(values, bits=bits, sym=sym)
    codes = uniform_grid.quantize(values, grid, bits)
    top = 2**bits - 1
    for group in range(5):
        for row in range(7):
            column = values[group, :, row].double().numpy()
            low, high = min(column.min(), 0.0), max(column.max(), 0.0)
            if sym:
                low, high = -max(high, -low), max(high, -low)
            scale = float(np.float16((high - low) / top))
            zero = 2 ** (bits - 1) if sym else round(-low / scale)
            assert (float(grid.scale[group, row]), float(grid.zero[group, row])) == (scale, zero)
            expected = np.clip(np.round(column / scale) + zero, 0, top)
            assert codes[group, :, row].tolist() == expected.tolist()
            read = (expected - zero) * scale
            dequantized = uniform_grid.dequantize(codes, grid)[group, :, row]
            np.testing.assert_array_equal(dequantized.numpy(), read.astype(np.float32))
    assert torch.equal(
        uniform_grid.rounded(values, grid, bits), uniform_grid.dequantize(codes, grid)
    )


@settings(max_examples=200, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 4)),
        elements=st.floats(-(2.0**120), 2.0**120, width=32),
    ),
    st.sampled_from(EVERY),
    st.sampled_from([0.0, 2.0, 2.4]),
)
def test_any_finite_values(values, bits_and_sym, mse):
    bits, sym = bits_and_sym
    tensor = torch.from_numpy(values)
    grid = uniform_grid.fit(tensor, bits=bits, sym=sym, mse=mse)
    assert torch.equal(grid.scale, grid.scale.half().float())
    assert bool((grid.scale > 0).all())
    assert bool(((grid.zero >= 0) & (grid.zero < 2**bits)).all())
    assert torch.equal(grid.zero, grid.zero.round())
    rounded = uniform_grid.rounded(tensor, grid, bits)
    assert bool(torch.isfinite(rounded).all())
    assert not bool(rounded[tensor == 0].any())
    if uniform_grid.saturated_groups(grid) == 0 and mse == 0.0:
        # Half a step, a whole one where a symmetric range ends early, and what float16 cost.
        step = grid.scale.unsqueeze(-2)
        largest = tensor.abs().amax(dim=-2, keepdim=True)
        bound = step * (1.0 if sym else 0.5) + 0.01 * largest + 2.0**-24 * 2**bits
        assert bool(((rounded - tensor).abs() <= bound).all())


def test_zeros_become_zeros():
    grid = uniform_grid.fit(torch.zeros(3, 8, 2), bits=4, sym=False)
    assert grid.scale.unique().tolist() == [1.0]
    # Not 0, which format gptq could not store.
    assert grid.zero.unique().tolist() == [8.0]
    assert not uniform_grid.rounded(torch.zeros(3, 8, 2), grid, 4).any()


@pytest.mark.parametrize("sym", [True, False])
def test_scales_beyond_float16(sym):
    values = random_values(2, 16, 3)
    values[0, 3, 1] = 1e7
    grid = uniform_grid.fit(values, bits=4, sym=sym)
    assert uniform_grid.saturated_groups(grid) == 1
    assert float(grid.scale[0, 1]) == 65504.0
    tiny = uniform_grid.fit(values * 1e-12, bits=4, sym=sym)
    assert uniform_grid.saturated_groups(tiny) == 0
    assert float(tiny.scale.min()) == 2.0**-24


@pytest.mark.parametrize(("bits", "sym"), EVERY)
@pytest.mark.parametrize("mse", [1.0, 2.0, 2.4, 4.0])
@pytest.mark.parametrize("rows", [1, 64, 70])
def test_search_on_both_paths(bits, sym, mse, rows):
    values = random_values(3, 32, rows, seed=bits)
    importance = torch.rand(3, 32, generator=torch.Generator().manual_seed(1)) + 0.1
    low, high = uniform_grid.value_range(values, sym=sym)
    options = {"bits": bits, "sym": sym, "mse": mse, "importance": importance}

    def losses(grid: uniform_grid.Grid) -> torch.Tensor:
        errors = (uniform_grid.rounded(values, grid, bits) - values).double().abs() ** mse
        return (errors * importance.unsqueeze(-1)).sum(dim=-2)

    compiled = losses(uniform_grid._search(values, low, high, **options))
    plain = losses(uniform_grid._search_with_torch(values, low, high, **options))
    full_range = losses(uniform_grid.fit(values, bits=bits, sym=sym))
    torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=0)
    assert bool((compiled <= full_range * 1.001).all())
    if bits < 8 and rows > 1:
        assert float(compiled.sum()) < 0.97 * float(full_range.sum())


def test_importance_is_heeded():
    values = random_values(1, 64, 20)
    importance = torch.full((1, 64), 1e-9)
    importance[0, 5] = 1e30
    grid = uniform_grid.fit(values, bits=3, sym=False, mse=2.0, importance=importance)
    error = (uniform_grid.rounded(values, grid, 3) - values)[0, 5].abs()
    plain = uniform_grid.fit(values, bits=3, sym=False, mse=2.0)
    assert error.mean() < 0.3 * (uniform_grid.rounded(values, plain, 3) - values)[0, 5].abs().mean()


@pytest.mark.parametrize("group_size", [0, -2, 5, 128])
def test_group_sizes_that_do_not_divide(group_size):
    with pytest.raises(ValueError, match="does not divide the input dimension 64"):
        uniform_grid.in_groups(torch.zeros(3, 64), group_size)


def test_groups_of_a_weight():
    weight = random_values(3, 12)
    groups = uniform_grid.in_groups(weight, 4)
    assert groups.shape == (3, 4, 3)
    assert torch.equal(groups[1, :, 2], weight[2, 4:8])
    assert uniform_grid.in_groups(weight, -1).shape == (1, 12, 3)
