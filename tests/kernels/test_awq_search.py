"""AWQ's searches with second moments against the published ones with activations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from quantd_server.kernels import output_error, uniform_grid
from quantd_server.kernels.awq.scales import ChannelScales, scaled_gram, search_scales
from quantd_server.kernels.range_clipping import clipped_grid

COLUMNS = 64
GROUP_SIZE = 16


@pytest.fixture(scope="module")
def inputs() -> torch.Tensor:
    """Activations [tokens, columns] with a few channels much larger than the others."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.ones(COLUMNS)
    sizes[[3, 17, 40]] = 12.0
    mixing = torch.eye(COLUMNS) + 0.2 * torch.randn(COLUMNS, COLUMNS, generator=generator)
    return torch.randn(500, COLUMNS, generator=generator) @ mixing * sizes


@pytest.fixture(scope="module")
def weights() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(rows, COLUMNS, generator=generator) * 0.1 for rows in (24, 8, 40)]


def rounded(weight: torch.Tensor, grid: uniform_grid.Grid, bits: int) -> torch.Tensor:
    values = uniform_grid.in_groups(weight, GROUP_SIZE)
    return uniform_grid.rounded(values, grid, bits).flatten(0, 1).T


def fitted(weight: torch.Tensor, bits: int, *, sym: bool) -> uniform_grid.Grid:
    return uniform_grid.fit(uniform_grid.in_groups(weight, GROUP_SIZE), bits=bits, sym=sym)


def published_search(
    weights: list[torch.Tensor], inputs: torch.Tensor, bits: int, *, sym: bool, duo: bool
) -> tuple[list[float], list[torch.Tensor]]:
    """llm-awq's grid of 20 with outputs computed from activations."""
    activation = inputs.abs().mean(dim=0)
    grouped = torch.cat(weights).abs().unflatten(1, (-1, GROUP_SIZE))
    size = (grouped / (grouped.amax(dim=2, keepdim=True) + 1e-6)).flatten(1).mean(dim=0)
    errors, candidates = [], []
    for step in range(20):
        ratio = step / 20
        scales = activation**ratio / ((size ** (1 - ratio) + 1e-4) if duo else 1.0)
        scales = scales.clamp(min=1e-4)
        scales /= torch.sqrt(scales.max() * scales.min())
        error = 0.0
        for weight in weights:
            scaled = weight * scales
            quantized = rounded(scaled, fitted(scaled, bits, sym=sym), bits) / scales
            error += float(((weight - quantized) @ inputs.T).double().square().sum())
        errors.append(error)
        candidates.append(scales)
    return errors, candidates


def search(weights, inputs, **changes) -> ChannelScales:
    arguments = {
        "weights": weights,
        "gram": inputs.T @ inputs,
        "activation": inputs.abs().mean(dim=0),
        "bits": 4,
        "group_size": GROUP_SIZE,
        "sym": False,
        **changes,
    }
    return search_scales(**arguments)


@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("duo", [True, False])
@pytest.mark.parametrize("bits", [3, 4])
def test_scales_as_with_activations(weights, inputs, bits, sym, duo):
    errors, candidates = published_search(weights, inputs, bits, sym=sym, duo=duo)
    best = int(np.argmin(errors))
    result = search(weights, inputs, bits=bits, sym=sym, duo_scaling=(duo,))
    assert result.squared_error == pytest.approx(errors[best], rel=1e-2)
    assert result.squared_error < 0.8 * result.squared_error_unscaled
    assert errors[round(result.ratio * 20)] == pytest.approx(errors[best], rel=1e-2)
    expected = candidates[round(result.ratio * 20)]
    torch.testing.assert_close(result.scales, expected, rtol=1e-3, atol=0)


def test_both_scalings_are_never_worse_than_one(weights, inputs):
    one = [search(weights, inputs, duo_scaling=(duo,)).squared_error for duo in (True, False)]
    both = search(weights, inputs, duo_scaling=(True, False)).squared_error
    assert both == min(one)


def test_what_is_large_does_not_matter(weights, inputs):
    expected = search(weights, inputs)
    gram, activation = inputs.T @ inputs, inputs.abs().mean(dim=0)
    for factor in (1e-12, 1e12):
        result = search(weights, inputs, gram=gram * factor, activation=activation * factor)
        torch.testing.assert_close(result.scales, expected.scales)


def test_scales_are_normalized(weights, inputs):
    scales = search(weights, inputs).scales
    assert float(scales.max() * scales.min()) == pytest.approx(1.0, rel=1e-5)


def test_dead_channels(weights, inputs):
    live = inputs.clone()
    live[:, [3, 20]] = 0.0
    scales = search(weights, live, duo_scaling=(True, False)).scales
    assert scales[[3, 20]].tolist() == [1.0, 1.0]
    assert bool((torch.isfinite(scales) & (scales > 0)).all())
    nothing = search(weights, torch.zeros_like(inputs))
    assert torch.equal(nothing.scales, torch.ones(COLUMNS))
    assert (nothing.ratio, nothing.squared_error) == (0.0, 0.0)
    zeros = search([torch.zeros_like(weight) for weight in weights], inputs)
    assert bool((torch.isfinite(zeros.scales) & (zeros.scales > 0)).all())


def test_a_sample_of_rows(inputs):
    weight = torch.randn(900, COLUMNS, generator=torch.Generator().manual_seed(2)) * 0.1
    every, sample = search([weight], inputs), search([weight], inputs, max_rows=300)
    assert sample.squared_error == pytest.approx(every.squared_error / 3, rel=0.1)
    assert abs(sample.ratio - every.ratio) <= 0.15


def test_shapes_that_do_not_fit(weights, inputs):
    with pytest.raises(ValueError, match="do not fit a gram"):
        search([*weights, torch.zeros(3, 32)], inputs)
    with pytest.raises(ValueError, match="does not divide"):
        search(weights, inputs, group_size=24)


def test_scaled_gram(inputs):
    scales = torch.rand(COLUMNS) + 0.5
    scaled = inputs / scales
    torch.testing.assert_close(
        scaled_gram(inputs.T @ inputs, scales), scaled.T @ scaled, rtol=1e-4, atol=1e-2
    )


@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize(("max_shrink", "n_grid"), [(0.5, 20), (0.3, 10)])
def test_clipping_as_with_activations(weights, inputs, bits, sym, max_shrink, n_grid):
    """Fit to a narrower range, round, and compare the outputs of each group on all tokens."""
    weight = weights[0]
    grid = clipped_grid(
        weight, inputs.T @ inputs, bits=bits, group_size=GROUP_SIZE, sym=sym,
        max_shrink=max_shrink, n_grid=n_grid,
    )  # fmt: skip
    result = rounded(weight, grid, bits)
    steps = [1 - step / n_grid for step in range(int(max_shrink * n_grid))]
    ends = [(step, step) for step in steps]
    if not sym:  # every second step of one end alone as well
        ends += [pair for step in steps[2::2] for pair in ((step, 1.0), (1.0, step))]
    for group in range(COLUMNS // GROUP_SIZE):
        columns = slice(group * GROUP_SIZE, (group + 1) * GROUP_SIZE)
        for row in range(weight.shape[0]):
            original = weight[row : row + 1, columns]
            losses = []
            for below, above in ends:
                narrower = torch.where(original < 0, original * below, original * above)
                narrower = narrower.T.unsqueeze(0)
                candidate = uniform_grid.fit(narrower, bits=bits, sym=sym)
                values = original.T.unsqueeze(0)
                quantized = uniform_grid.rounded(values, candidate, bits)[0].T
                losses.append(float(((original - quantized) @ inputs[:, columns].T).square().sum()))
            difference = original - result[row : row + 1, columns]
            loss = float((difference @ inputs[:, columns].T).square().sum())
            assert loss == pytest.approx(min(losses), rel=1e-2)


def test_clipping_in_chunks_of_rows(inputs):
    weight = torch.randn(1500, COLUMNS, generator=torch.Generator().manual_seed(3))
    gram = inputs.T @ inputs
    options = {"bits": 4, "group_size": GROUP_SIZE, "sym": False}
    whole = clipped_grid(weight, gram, **options)
    part = clipped_grid(weight[1100:1200], gram, **options)
    assert whole.scale.shape == (COLUMNS // GROUP_SIZE, 1500)
    torch.testing.assert_close(whole.scale[:, 1100:1200], part.scale)


def test_clipping_without_inputs_keeps_the_range(weights):
    grid = clipped_grid(
        weights[0], torch.zeros(COLUMNS, COLUMNS), bits=4, group_size=GROUP_SIZE, sym=False
    )
    for got, expected in zip(grid, fitted(weights[0], 4, sym=False), strict=True):
        assert torch.equal(got, expected)
    with pytest.raises(ValueError, match="does not fit a gram"):
        clipped_grid(weights[0], torch.eye(8), bits=4, group_size=GROUP_SIZE, sym=False)


# --- output error -------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 64, 128, 300])
@pytest.mark.parametrize("rows", [1, 1100])
def test_output_error_as_with_activations(rows, columns):
    generator = torch.Generator().manual_seed(columns)
    inputs = torch.randn(400, columns, generator=generator)
    weight = torch.randn(rows, columns, generator=generator)
    other = weight + 0.01 * torch.randn(rows, columns, generator=generator)
    gram = inputs.T @ inputs
    lost = ((weight - other).double() @ inputs.double().T).norm()
    energy = (weight.double() @ inputs.double().T).norm()
    # The error may be rounded to bfloat16 first.
    close = 1e-4 + 2**-7 / math.sqrt(rows)
    assert output_error.squared_output_error(weight - other, gram) == pytest.approx(
        float(lost**2), rel=close
    )
    relative = output_error.relative_output_error(weight, other, gram)
    assert relative == pytest.approx(float(lost / energy), rel=close)


def test_output_error_of_nothing():
    weight, gram = torch.ones(2, 4), torch.eye(4)
    assert output_error.relative_output_error(weight, weight, gram) == 0.0
    assert output_error.relative_output_error(weight, weight * 2, gram * 0) == 0.0
    assert output_error.relative_output_error(weight * 0, weight, gram) == math.inf
