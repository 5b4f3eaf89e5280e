"""Scales chosen for linears with inputs of their own, against linears that share one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quantd_server.calibration.statistics import InputStatistics
from quantd_server.kernels.awq.scales import search_scales
from quantd_server.methods.channel_scales import ScaleSettings, choose_scales
from quantd_server.methods.linear_solver import LinearSettings

LINEAR = LinearSettings(bits=4, group_size=16, sym=False)
COLUMNS = 48


def inputs(tokens: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(tokens, COLUMNS, generator=generator)
    return values * torch.exp(
        1.5 * torch.randn(COLUMNS, generator=torch.Generator().manual_seed(7))
    )


def statistics(values: torch.Tensor) -> InputStatistics:
    mean_abs = values.abs().mean(0) if len(values) else torch.zeros(COLUMNS)
    return InputStatistics(gram=values.T @ values, mean_abs=mean_abs, tokens=len(values))


def weights(rows: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, COLUMNS, generator=torch.Generator().manual_seed(seed))


def chosen(groups, *, duo: bool) -> torch.Tensor:
    scales = choose_scales(
        lambda: iter(groups), ScaleSettings(n_grid=10, duo_scaling=duo), LINEAR, fewest_tokens=1
    )
    assert scales is not None
    return scales


def searched(weights: list[torch.Tensor], found: InputStatistics, *, duo: bool) -> torch.Tensor:
    """For weights that share one input."""
    return search_scales(
        weights,
        found.gram,
        found.mean_abs,
        bits=LINEAR.bits,
        group_size=LINEAR.group_size,
        sym=LINEAR.sym,
        n_grid=10,
        duo_scaling=(duo,),
        max_rows=256,
    ).scales


@pytest.mark.parametrize("duo", [False, True])
def test_groups_with_the_same_input_are_one_group(duo) -> None:
    shared = statistics(inputs(300, 1))
    first, second, third = weights(16, 1), weights(32, 2), weights(8, 3)
    together = searched([first, second, third], shared, duo=duo)
    apart = chosen([([first, third], shared), ([second], shared)], duo=duo)
    np.testing.assert_allclose(apart, together, rtol=1e-5)
    assert together.max() / together.min() > 1.5  # a choice was made


@pytest.mark.parametrize("duo", [False, True])
def test_tokens_of_one_linear_may_come_in_parts(duo) -> None:
    """The errors of two groups add up: one weight on two parts of the tokens, or on all."""
    first, second = inputs(100, 1), inputs(500, 2)
    weight = weights(32, 1)
    together = searched([weight], statistics(torch.cat([first, second])), duo=duo)
    apart = chosen([([weight], statistics(first)), ([weight], statistics(second))], duo=duo)
    np.testing.assert_allclose(apart, together, rtol=1e-5)


def test_an_expert_without_tokens_has_no_say() -> None:
    seen, unseen = statistics(inputs(300, 1)), statistics(inputs(0, 1))
    with_it = chosen([([weights(16, 1)], seen), ([weights(16, 2)], unseen)], duo=False)
    without = searched([weights(16, 1)], seen, duo=False)
    np.testing.assert_allclose(with_it, without, rtol=1e-5)


def test_with_next_to_no_tokens_nothing_is_scaled() -> None:
    settings = ScaleSettings(n_grid=10, duo_scaling=None)
    few = [([weights(16, 1)], statistics(inputs(20, 1)))] * 2
    assert choose_scales(lambda: few, settings, LINEAR, fewest_tokens=41) is None
    assert choose_scales(lambda: few, settings, LINEAR, fewest_tokens=40) is not None
