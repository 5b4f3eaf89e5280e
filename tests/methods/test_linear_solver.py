"""The three ways to quantize a linear, against their definitions in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantd_server.kernels.gptq.column_order import ColumnOrder
from quantd_server.methods.linear_solver import (
    GptqSettings,
    LinearSettings,
    QuantizedWeight,
    quantize_linear,
    rounded,
)

GPTQ = GptqSettings(
    order=ColumnOrder.ACTIVATION_IN_GROUPS,
    static_groups=False,
    damp_percent=0.05,
    damp_auto_increment=0.01,
    block_size=128,
)
PLAIN = LinearSettings(bits=4, group_size=16, sym=False)
WAYS = {
    "rounding": PLAIN,
    "clipping": replace(PLAIN, max_shrink=0.5),
    "gptq": replace(PLAIN, gptq=GPTQ),
    "gptq-static": replace(PLAIN, gptq=replace(GPTQ, static_groups=True)),
    "gptq-clipped": replace(PLAIN, gptq=replace(GPTQ, static_groups=True), max_shrink=0.5),
    "gptq-by-activation": replace(PLAIN, gptq=replace(GPTQ, order=ColumnOrder.ACTIVATION)),
}


def problem(rows: int = 24, columns: int = 64, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight with outliers, and the second moment of inputs that depend on each other."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    weight[:, ::7] *= 3
    inputs = torch.randn(400, columns, generator=generator) @ torch.randn(
        columns, columns, generator=generator
    )
    inputs *= torch.exp(torch.randn(columns, generator=generator))
    return weight, inputs.T @ inputs


def lost(weight: torch.Tensor, gram: torch.Tensor, solved: QuantizedWeight) -> float:
    difference = (dequantized(solved) - weight.double().numpy()).astype(np.float64)
    return float(np.einsum("ij,jk,ik->", difference, gram.double().numpy(), difference))


def dequantized(solved: QuantizedWeight) -> np.ndarray:
    """By the definition: (code - zero) * scale."""
    index = solved.g_idx.long().numpy()
    codes, zeros = solved.codes.numpy().astype(np.float64), solved.zeros.numpy().astype(np.float64)
    return (codes - zeros[:, index]) * solved.scales.double().numpy()[:, index]


@pytest.mark.parametrize("settings", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_what_every_way_gives(settings, bits) -> None:
    weight, gram = problem()
    kept = weight.clone(), gram.clone()
    settings = replace(settings, bits=bits)
    solved = quantize_linear(weight, gram, settings, threads=1)
    assert torch.equal(weight, kept[0]) and torch.equal(gram, kept[1])
    assert not solved.fell_back and solved.saturated_groups == 0
    assert solved.codes.dtype == solved.zeros.dtype == torch.uint8
    assert int(solved.codes.max()) < 1 << bits and int(solved.zeros.max()) < 1 << bits
    assert solved.scales.shape == solved.zeros.shape == (24, 4)
    assert torch.equal(solved.scales, solved.scales.half().float())  # what is stored
    assert solved.g_idx.bincount().tolist() == [16] * 4
    np.testing.assert_allclose(solved.dequantize().numpy(), dequantized(solved), rtol=1e-6)
    plain = lost(weight, gram, rounded(weight, settings))
    assert lost(weight, gram, solved) <= plain
    if settings.gptq is not None and bits < 8:
        assert lost(weight, gram, solved) < 0.7 * plain


@pytest.mark.parametrize("settings", WAYS.values(), ids=WAYS)
def test_threads_change_nothing(settings) -> None:
    weight, gram = problem(rows=200)
    one, three = (quantize_linear(weight, gram, settings, threads=count) for count in (1, 3))
    assert torch.equal(one.codes, three.codes)
    assert torch.equal(one.scales, three.scales)


@given(
    st.integers(1, 40),
    st.sampled_from([(16, 16), (48, 16), (32, -1), (96, 32), (40, 8)]),
    st.sampled_from(list(WAYS)),
    st.booleans(),
    st.integers(0, 1000),
)
def test_any_shape(rows, shape, way, sym, seed) -> None:
    columns, size = shape
    weight, gram = problem(rows, columns, seed)
    settings = replace(WAYS[way], group_size=size, sym=sym)
    solved = quantize_linear(weight, gram, settings, threads=1)
    assert solved.codes.shape == weight.shape
    # Nothing moves by more than the range of its group.
    largest = weight.abs().max()
    assert np.abs(dequantized(solved) - weight.numpy()).max() <= 2 * largest


def test_clipped_grids_are_kept_by_the_solver() -> None:
    weight, gram = problem()
    clipped = rounded(weight, WAYS["clipping"], gram)
    solved = quantize_linear(weight, gram, WAYS["gptq-clipped"], threads=1)
    assert torch.equal(solved.scales, clipped.scales)
    assert torch.equal(solved.zeros, clipped.zeros)
    assert not torch.equal(solved.codes, clipped.codes)


def test_a_second_moment_that_is_no_use() -> None:
    weight, gram = problem()
    gram[0, 0] = torch.inf
    solved = quantize_linear(weight, gram, WAYS["gptq"], threads=1)
    assert solved.fell_back
    assert torch.equal(solved.codes, rounded(weight, PLAIN).codes)


def test_weights_beyond_float16() -> None:
    weight, gram = problem()
    weight[3, :16] *= 1e7
    assert quantize_linear(weight, gram, PLAIN, threads=1).saturated_groups == 1
    solved = quantize_linear(weight, gram, WAYS["gptq"], threads=1)
    assert solved.saturated_groups >= 1  # the error that is left spreads to other groups
    assert torch.isfinite(solved.dequantize()).all()
