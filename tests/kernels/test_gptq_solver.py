"""GPTQ's solver against the textbook in float64: one column at a time, the inverse explicit."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantd_server.kernels import uniform_grid
from quantd_server.kernels.gptq import column_rounding, reverse_cholesky, solver
from quantd_server.kernels.gptq.column_order import ColumnOrder, column_order
from quantd_server.kernels.gptq.solver import Solution, solve
from quantd_server.kernels.uniform_grid import Grid


def problem(rows: int, columns: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight and the second moment of correlated inputs whose channels differ in size."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator) / columns**0.5
    sizes = torch.rand(columns, generator=generator) * 2 + 0.05
    inputs = torch.randn(4 * columns, columns, generator=generator) @ (mixing * sizes)
    return torch.randn(rows, columns, generator=generator) * 0.05, inputs.T @ inputs


def dequantized(solution: Solution) -> torch.Tensor:
    """As readers do, independent of the kernels."""
    index = solution.g_idx.long()
    zeros = solution.zeros.double()[:, index]
    return (solution.codes.double() - zeros) * solution.scales.double()[:, index]


def fixed_grid(weight: torch.Tensor, bits: int, group_size: int, *, sym: bool) -> Grid:
    return uniform_grid.fit(uniform_grid.in_groups(weight, group_size), bits=bits, sym=sym)


def squared_error(weight: torch.Tensor, gram: torch.Tensor, rounded: torch.Tensor) -> float:
    difference = weight.double() - rounded
    return float(torch.trace(difference @ gram.double() @ difference.T))


def plain_rounding(weight: torch.Tensor, bits: int, group_size: int, *, sym: bool) -> torch.Tensor:
    values = uniform_grid.in_groups(weight, group_size)
    grid = uniform_grid.fit(values, bits=bits, sym=sym)
    return uniform_grid.rounded(values, grid, bits).flatten(0, 1).T.double()


# --- the oracle -------------------------------------------------------------------------------


def textbook_grid(values: np.ndarray, bits: int, *, sym: bool) -> tuple[np.float64, float]:
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    if sym:
        high = max(high, -low)
        low = -high
    scale = np.float64(np.float16(np.float32((high - low) / (2**bits - 1))))
    return scale, 2.0 ** (bits - 1) if sym else float(
        np.clip(np.round(-low / scale), 0, 2**bits - 1)
    )


def textbook_orders(order: ColumnOrder, activation: np.ndarray, size: int) -> np.ndarray:
    columns = np.arange(len(activation))
    if order is ColumnOrder.NATURAL:
        return columns
    if order is ColumnOrder.ACTIVATION:
        return np.array(sorted(columns, key=lambda column: -activation[column]))
    groups = sorted(columns.reshape(-1, size), key=lambda group: -activation[group].max())
    return np.concatenate(
        [sorted(group, key=lambda column: -activation[column]) for group in groups]
    )


def textbook(
    weight: torch.Tensor,
    gram: torch.Tensor,
    bits: int,
    group_size: int,
    *,
    sym: bool,
    order: ColumnOrder,
    static_groups: bool,
    damp_percent: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Optimal Brain Quantization with a fixed order: dequantized weight and group of each column.

    After each column its row and column leave the inverse by Gaussian elimination.
    """
    values, moment = weight.double().numpy().copy(), gram.double().numpy()
    rows, columns = values.shape
    size = columns if group_size == -1 else group_size
    positions = textbook_orders(order, np.diag(moment), size)
    inverse = np.linalg.inv(moment + damp_percent * np.diag(moment).mean() * np.eye(columns))
    by_position = order is ColumnOrder.ACTIVATION and not static_groups
    group_of = np.empty(columns, np.int64)
    for position, column in enumerate(positions):
        group_of[column] = (position if by_position else column) // size
    original = values.copy()
    grids: dict[tuple[int, int], tuple[np.float64, float]] = {}
    remaining = list(positions)
    while remaining:
        column = remaining.pop(0)
        group = group_of[column]
        members = np.flatnonzero(group_of == group)
        for row in range(rows):
            if (row, group) not in grids:
                source = original if static_groups else values
                grids[row, group] = textbook_grid(source[row, members], bits, sym=sym)
            scale, zero = grids[row, group]
            code = np.clip(np.round(values[row, column] / scale) + zero, 0, 2**bits - 1)
            rounded = (code - zero) * scale
            factor = (values[row, column] - rounded) / inverse[column, column]
            values[row, remaining] -= factor * inverse[column, remaining]
            values[row, column] = rounded
        inverse -= np.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    return values, group_of


CASES = list(
    itertools.product((2, 3, 4, 8), (-1, 8, 32), (True, False), ColumnOrder, (False, True))
)


@pytest.mark.parametrize(("bits", "group_size", "sym", "order", "static_groups"), CASES)
def test_equals_the_textbook(bits, group_size, sym, order, static_groups):
    weight, gram = problem(rows=3, columns=96, seed=bits)
    options = {"sym": sym, "order": order, "damp_percent": 0.02}
    expected, groups = textbook(
        weight, gram, bits, group_size, static_groups=static_groups, **options
    )
    grid = fixed_grid(weight, bits, group_size, sym=sym) if static_groups else None
    solution = solve(
        weight, gram, bits=bits, group_size=group_size, static_grid=grid, block_size=24, **options
    )
    assert solution.g_idx.tolist() == groups.tolist()
    assert not solution.fell_back
    assert solution.damp == 0.02
    # A value halfway between two codes may go either way in float32, and others follow it.
    result = dequantized(solution)
    same = np.isclose(result.numpy(), expected, rtol=1e-3, atol=1e-6).all(axis=1)
    assert same.sum() >= (2 if bits < 8 else 1), result.numpy() - expected
    error = squared_error(weight, gram, result)
    assert error == pytest.approx(squared_error(weight, gram, torch.from_numpy(expected)), rel=0.1)
    assert solution.squared_error == pytest.approx(error, rel=1e-3)


# --- what the result is -----------------------------------------------------------------------


@pytest.mark.parametrize("order", ColumnOrder)
@pytest.mark.parametrize(("group_size", "block_size"), [(16, 128), (128, 64), (-1, 64), (96, 128)])
def test_blocks_change_nothing(order, group_size, block_size):
    weight, gram = problem(rows=70, columns=384)
    options = {"bits": 4, "group_size": group_size, "sym": False, "order": order}
    blocked = solve(weight, gram, block_size=block_size, **options)
    whole = solve(weight, gram, block_size=384, **options)
    assert float((blocked.codes == whole.codes).float().mean()) > 0.995
    assert blocked.squared_error == pytest.approx(whole.squared_error, rel=1e-2)


def test_threads_change_nothing():
    weight, gram = problem(rows=200, columns=128)
    one = solve(weight, gram, bits=4, group_size=32, sym=True, threads=1)
    three = solve(weight, gram, bits=4, group_size=32, sym=True, threads=3)
    assert torch.equal(one.codes, three.codes)
    assert torch.equal(one.scales, three.scales)


def test_the_input_stays_as_it_is():
    weight, gram = problem(rows=8, columns=64)
    weight_before, gram_before = weight.clone(), gram.clone()
    solve(weight, gram, bits=4, group_size=16, sym=True, order=ColumnOrder.ACTIVATION)
    assert torch.equal(weight, weight_before)
    assert torch.equal(gram, gram_before)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
def test_the_scale_of_the_gram_does_not_matter(scale):
    weight, gram = problem(rows=16, columns=64)
    gram /= gram.diagonal().mean()
    expected = solve(weight, gram, bits=4, group_size=16, sym=True)
    solution = solve(weight, gram * scale, bits=4, group_size=16, sym=True)
    assert not solution.fell_back
    assert float((solution.codes == expected.codes).float().mean()) > 0.995
    assert solution.squared_error == pytest.approx(expected.squared_error * scale, rel=1e-2)


@pytest.mark.parametrize("bits", solver.BITS)
@pytest.mark.parametrize("order", ColumnOrder)
@pytest.mark.parametrize("sym", [True, False])
def test_better_than_plain_rounding(bits, order, sym):
    for seed in range(3):
        weight, gram = problem(rows=64, columns=128, seed=seed)
        solution = solve(weight, gram, bits=bits, group_size=32, sym=sym, order=order)
        plain = squared_error(weight, gram, plain_rounding(weight, bits, 32, sym=sym))
        assert squared_error(weight, gram, dequantized(solution)) < 0.9 * plain


def test_independent_inputs_are_plain_rounding():
    weight, _ = problem(rows=16, columns=64)
    solution = solve(weight, torch.diag(torch.rand(64) + 1), bits=3, group_size=16, sym=False)
    expected = plain_rounding(weight, 3, 16, sym=False)
    assert torch.equal(dequantized(solution), expected)


# --- difficult second moments -------------------------------------------------------------------


def test_dead_columns_are_rounded_on_their_own():
    weight, gram = problem(rows=16, columns=64)
    dead = [0, 5, 63]
    gram[dead, :] = 0
    gram[:, dead] = 0
    grid = fixed_grid(weight, 4, 16, sym=True)
    solution = solve(weight, gram, bits=4, group_size=16, sym=True, static_grid=grid)
    assert solution.dead_columns == 3
    expected = plain_rounding(weight, 4, 16, sym=True)
    assert torch.equal(dequantized(solution)[:, dead], expected[:, dead])
    error = squared_error(weight, gram, dequantized(solution))
    assert solution.squared_error == pytest.approx(error, rel=1e-3)


def test_no_inputs_at_all():
    weight, gram = problem(rows=16, columns=64)
    solution = solve(weight, torch.zeros_like(gram), bits=4, group_size=16, sym=True)
    assert (solution.dead_columns, solution.squared_error) == (64, 0.0)
    assert torch.equal(dequantized(solution), plain_rounding(weight, 4, 16, sym=True))


@pytest.mark.parametrize("rank", [1, 7, 63])
def test_rank_deficient(rank):
    weight, _ = problem(rows=16, columns=128)
    inputs = torch.randn(rank, 128, generator=torch.Generator().manual_seed(1))
    gram = inputs.T @ inputs
    solution = solve(weight, gram, bits=4, group_size=32, sym=True)
    assert not solution.fell_back
    plain = squared_error(weight, gram, plain_rounding(weight, 4, 32, sym=True))
    assert squared_error(weight, gram, dequantized(solution)) < plain


def test_damping_grows_until_it_suffices():
    weight, gram = problem(rows=4, columns=32)
    gram /= gram.diagonal().mean()
    lowest = float(torch.linalg.eigvalsh(gram)[0])
    gram -= torch.eye(32) * (lowest + 0.1)
    solution = solve(weight, gram, bits=4, group_size=16, sym=True, damp_percent=0.01)
    assert not solution.fell_back
    assert 0.1 < solution.damp * float(gram.diagonal().mean()) < 0.5


@pytest.mark.parametrize(
    "spoil",
    [
        lambda gram: gram.fill_(torch.nan),
        lambda gram: gram[3, 3].fill_(torch.inf),
        lambda gram: gram[3, 7].fill_(torch.nan),
        lambda gram: gram.neg_(),
        lambda gram: gram[3, 7].fill_(1e30) + gram[7, 3].fill_(1e30),
    ],
    ids=["nan", "infinity", "one nan", "negative", "indefinite"],
)
@pytest.mark.parametrize("order", ColumnOrder)
@pytest.mark.parametrize("increment", [0.0, 0.01])
def test_what_cannot_be_factorized_is_rounded_plainly(spoil, order, increment):
    weight, gram = problem(rows=8, columns=64)
    spoil(gram)
    options = {"bits": 4, "group_size": 16, "sym": False}
    solution = solve(weight, gram, order=order, damp_auto_increment=increment, **options)
    assert solution.fell_back
    assert np.isnan(solution.squared_error)
    assert torch.equal(dequantized(solution), plain_rounding(weight, 4, 16, sym=False))
    assert solution.g_idx.tolist() == [column // 16 for column in range(64)]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 12), st.sampled_from([1, 2, 8, 16]), st.integers(1, 40),
    st.sampled_from(solver.BITS), st.booleans(), st.sampled_from(ColumnOrder), st.booleans(),
)  # fmt: skip
def test_any_shape(rows, groups, size, block_size, bits, sym, order, static_groups):
    weight, gram = problem(rows, groups * size, seed=rows)
    solution = solve(
        weight, gram, bits=bits, group_size=size, sym=sym, order=order, block_size=block_size,
        static_grid=fixed_grid(weight, bits, size, sym=sym) if static_groups else None,
    )  # fmt: skip
    assert solution.codes.shape == weight.shape
    assert solution.codes.T.is_contiguous()
    assert solution.scales.shape == solution.zeros.shape == (rows, groups)
    assert torch.equal(solution.scales, solution.scales.half().float())
    assert bool((solution.scales > 0).all())
    assert int(solution.codes.max()) < 1 << bits
    assert int(solution.zeros.max()) < 1 << bits
    assert torch.bincount(solution.g_idx.long()).tolist() == [size] * groups
    assert bool(torch.isfinite(dequantized(solution)).all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group_size": 24}, "does not divide"),
        ({"group_size": 0}, "does not divide"),
        ({"group_size": 128}, "does not divide"),
        ({"bits": 5}, "bits is 5"),
        ({"block_size": 0}, "block_size is 0"),
        ({"weight": torch.zeros(64)}, "shape"),
        ({"weight": torch.zeros(4, 32)}, "needs a gram"),
        ({"weight": torch.zeros(4, 64, dtype=torch.float16)}, "float32"),
        ({"weight": torch.full((4, 64), torch.nan)}, "NaN"),
        ({"weight": torch.full((4, 64), torch.inf)}, "NaN"),
    ],
)
def test_refusals(change, message):
    weight, gram = problem(rows=4, columns=64)
    arguments = {"weight": weight, "gram": gram, "bits": 4, "group_size": 16, "sym": True, **change}
    with pytest.raises(ValueError, match=message):
        solve(**arguments)


# --- the parts --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 5, 64, 256, 300, 700])
def test_factorization_against_float64(size):
    _, gram = problem(rows=1, columns=size)
    gram = gram / gram.diagonal().mean() + 0.05 * torch.eye(size)
    factor = gram.clone()
    assert reverse_cholesky.factorize_in_place(factor)
    factor = factor.triu()
    expected = torch.linalg.cholesky(torch.linalg.inv(gram.double()), upper=True)
    inverse = torch.linalg.solve_triangular(factor, torch.eye(size), upper=True)
    torch.testing.assert_close(inverse.double(), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(factor @ factor.T, gram, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("position", [0, 100, 299])
def test_factorization_of_an_indefinite_matrix(position):
    matrix = torch.eye(300)
    matrix[position, position] = -1.0
    assert not reverse_cholesky.factorize_in_place(matrix)


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("threads", [1, 3])
def test_recursion_on_both_paths(rows, threads):
    generator = torch.Generator().manual_seed(rows)
    values = torch.randn(48, rows, generator=generator)
    inverse = (torch.randn(48, 48, generator=generator) * 0.1).triu() + torch.eye(48)
    grid = uniform_grid.fit(values.unflatten(0, (3, 16)), bits=4, sym=False)
    groups = torch.arange(48).flip(0) // 16

    def outputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return values * 0.9, torch.empty(48, rows, dtype=torch.uint8), torch.empty(48, rows)

    compiled, plain = outputs(), outputs()
    with ThreadPoolExecutor(threads) as executor:
        column_rounding.round_columns(
            values, inverse, grid, groups, 15, *compiled,
            executor if threads > 1 else None, threads,
        )  # fmt: skip
    column_rounding._round_with_torch(values, inverse, grid, groups, 15, *plain)
    assert torch.equal(compiled[1], plain[1])
    for one, other in zip(compiled, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_order_in_groups():
    activation = torch.tensor([1.0, 4.0, 9.0, 2.0, 3.0, 5.0])
    order = column_order(ColumnOrder.ACTIVATION_IN_GROUPS, activation, 2)
    assert order.tolist() == [2, 3, 5, 4, 1, 0]
