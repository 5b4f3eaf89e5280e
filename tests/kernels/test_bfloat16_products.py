"""Second moments of bfloat16 against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantd_server.kernels import bfloat16_products

if not bfloat16_products.available():
    pytest.skip("this processor has no AVX512-BF16, or AMX", allow_module_level=True)

shapes = st.tuples(st.integers(1, 600), st.integers(1, 120))


def values(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).bfloat16()


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(1, 4), st.integers(0, 99))
def test_second_moment(shape, threads, seed):
    inputs = values(*shape, seed)
    gram = torch.ones(shape[1], shape[1])
    magnitudes = torch.ones(shape[1], dtype=torch.float64)
    bfloat16_products.add_second_moment(inputs, gram, magnitudes, threads)
    exact = inputs.double().T @ inputs.double() + 1
    scale = inputs.double().norm(dim=0)
    error = (gram.double() - exact).triu().abs() / (scale[:, None] * scale[None] + 1)
    assert error.max() < 5e-6
    assert torch.allclose(magnitudes, inputs.double().abs().sum(dim=0) + 1, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(1, 4), st.integers(0, 99))
def test_squared_product(shape, threads, seed):
    vectors = values(*shape, seed).float()
    factor = values(shape[1], shape[1], seed + 100).double()
    gram = (factor @ factor.T).float()
    exact = float(((vectors.double() @ gram.double()) * vectors.double()).sum())
    got = bfloat16_products.squared_product(vectors, gram, threads)
    assert got == pytest.approx(exact, rel=1e-4)


def test_the_sum_does_not_depend_on_the_number_of_threads():
    inputs = values(3000, 200, 7)
    found = []
    for threads in (1, 2, 5):
        gram = torch.zeros(200, 200)
        bfloat16_products.add_second_moment(
            inputs, gram, torch.zeros(200, dtype=torch.float64), threads
        )
        found.append(gram.triu().numpy().tobytes())
    assert len(set(found)) == 1


def test_values_that_are_not_finite_are_seen():
    inputs = values(40, 60, 1)
    inputs[3, 5] = np.inf
    gram = torch.zeros(60, 60)
    bfloat16_products.add_second_moment(inputs, gram, torch.zeros(60, dtype=torch.float64), 2)
    assert not bool(torch.isfinite(gram[5, 5]))
