"""AQLM's solver, part by part, against float64 and against looking at everything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from quantd_server.kernels.aqlm.additive_code import AdditiveCode
from quantd_server.kernels.aqlm.code_search import search_codes
from quantd_server.kernels.aqlm.codebook_update import update_codebooks, update_scales
from quantd_server.kernels.aqlm.gradients import code_gradients
from quantd_server.kernels.aqlm.packing import pack_codes, unpack_codes
from quantd_server.kernels.aqlm.solver import SolverSettings, solve

shapes = st.tuples(
    st.integers(1, 6),  # out groups
    st.integers(1, 5),  # in groups
    st.integers(1, 3),  # codebooks
    st.sampled_from([1, 2]),  # out group size
    st.sampled_from([2, 4, 8]),  # in group size
)


def random_code(shape, vectors: int, seed: int) -> AdditiveCode:
    rows, groups, codebooks, tall, wide = shape
    generator = torch.Generator().manual_seed(seed)
    return AdditiveCode(
        codes=torch.randint(vectors, (rows, groups, codebooks), generator=generator).int(),
        codebooks=torch.randn(codebooks, vectors, tall, wide, generator=generator),
        scales=torch.rand(rows, generator=generator) + 0.5,
    )


def problem(shape, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight and the second moment of some inputs, with very unequal channels."""
    rows, groups, _, tall, wide = shape
    generator = torch.Generator().manual_seed(seed + 1)
    weight = torch.randn(rows * tall, groups * wide, generator=generator)
    inputs = torch.randn(200, groups * wide, generator=generator)
    inputs *= torch.rand(groups * wide, generator=generator).mul(3).exp()
    inputs[:, 1:] += 0.5 * inputs[:, :1]
    return weight, inputs.T @ inputs / 200


def error(weight: torch.Tensor, gram: torch.Tensor, code: AdditiveCode) -> float:
    lost = weight.double() - code.decode().double()
    return float(((lost @ gram.double()) * lost).sum())


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(0, 99))
def test_decoding_is_by_definition(shape, seed):
    code = random_code(shape, 8, seed)
    rows, groups, codebooks, tall, wide = shape
    weight = code.decode()
    for row, group in itertools.product(range(rows), range(groups)):
        expected = code.scales[row] * sum(
            code.codebooks[m, code.codes[row, group, m]] for m in range(codebooks)
        )
        place = (slice(row * tall, (row + 1) * tall), slice(group * wide, (group + 1) * wide))
        assert torch.allclose(weight[place], expected, atol=1e-5)
    for group in range(groups):
        columns = slice(group * wide, (group + 1) * wide)
        assert torch.allclose(code.decode_group(group), weight[:, columns], atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(0, 99))
def test_gathering_is_the_adjoint_of_spreading(shape, seed):
    code = random_code(shape, 8, seed)
    values, _ = problem(shape, seed)
    left = float((code.decode().double() * values.double()).sum())
    right = float((code.codebooks.double() * code.gathered(values).double()).sum())
    assert left == pytest.approx(right, rel=1e-4, abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(shapes, st.integers(0, 99))
def test_gradients_are_those_of_autograd(shape, seed):
    code = random_code(shape, 8, seed)
    wanted, _ = problem(shape, seed)
    codebooks = code.codebooks.clone().requires_grad_()
    scales = code.scales.clone().requires_grad_()
    decoded = AdditiveCode(codes=code.codes, codebooks=codebooks, scales=scales).decode()
    (decoded * wanted).sum().backward()
    found = code_gradients(code, wanted)
    torch.testing.assert_close(found[0], codebooks.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1], scales.grad, rtol=1e-4, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(shapes, st.integers(0, 99))
def test_codebooks_are_the_solution_of_least_squares(shape, seed):
    code = random_code(shape, 4, seed)
    weight, gram = problem(shape, seed)
    basis = torch.eye(code.codebooks.numel()).view(-1, *code.codebooks.shape)
    root = torch.linalg.cholesky(gram.double() + 1e-9 * torch.eye(len(gram)).double())
    columns = [(code.spread(direction).double() @ root).flatten() for direction in basis]
    matrix = torch.stack(columns, 1)
    wanted = (weight.double() @ root).flatten()
    best = torch.linalg.lstsq(matrix, wanted, driver="gelsd").solution
    least = float((matrix @ best - wanted).square().sum())
    before = error(weight, gram, code)
    update_codebooks(weight, gram, code, steps=300, tolerance=1e-9)
    energy = float(wanted.square().sum())
    assert least - 1e-6 * energy <= error(weight, gram, code) <= least + 2e-3 * before


@settings(max_examples=25, deadline=None)
@given(shapes, st.integers(0, 99))
@example((2, 2, 1, 1, 2), 35)  # a row whose best scale is negative
def test_scales_are_the_solution_of_least_squares(shape, seed):
    code = random_code(shape, 8, seed)
    weight, gram = problem(shape, seed)
    search_codes(weight, gram, code, beam_size=1, threads=1)
    update_scales(weight, gram, code)
    best = error(weight, gram, code)
    for factor in (0.98, 1.02):
        for row in range(len(code.scales)):
            scales = code.scales.clone()
            scales[row] *= factor
            other = AdditiveCode(codes=code.codes, codebooks=code.codebooks, scales=scales)
            assert error(weight, gram, other) >= best * (1 - 1e-5)


@settings(max_examples=25, deadline=None)
@given(shapes, st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_a_search_never_makes_it_worse(shape, beam_size, threads, seed):
    code = random_code(shape, 8, seed)
    weight, gram = problem(shape, seed)
    before = error(weight, gram, code)
    search_codes(weight, gram, code, beam_size=beam_size, threads=threads)
    assert error(weight, gram, code) <= before * (1 + 1e-5)


@pytest.mark.parametrize("vectors", [4, 6, 16])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("tall", [1, 2])
def test_with_one_group_all_pairs_are_looked_at(vectors, threads, tall):
    shape = (40, 1, 2, tall, 4)
    code = random_code(shape, vectors, 3)
    weight, gram = problem(shape, 3)
    search_codes(weight, gram, code, beam_size=vectors**2, threads=threads)
    found = error(weight, gram, code)
    pairs = list(itertools.product(range(vectors), repeat=2))
    errors = []
    for pair in pairs:
        code.codes[:] = torch.tensor(pair)
        lost = (weight - code.decode()).double()
        errors.append(((lost @ gram.double()) * lost).sum(1).unflatten(0, (-1, tall)).sum(1))
    assert found == pytest.approx(float(torch.stack(errors).amin(0).sum()), rel=1e-5)


def test_later_groups_make_up_for_earlier_ones():
    shape = (30, 40, 2, 1, 4)  # more columns than a block of the search
    code = random_code(shape, 16, 5)
    weight, gram = problem(shape, 5)
    for _ in range(3):
        before = error(weight, gram, code)
        search_codes(weight, gram, code, beam_size=1, threads=1)
        assert error(weight, gram, code) <= before * (1 + 1e-5)
    # A fixed point: no single group can be changed for the better.
    for _ in range(20):
        search_codes(weight, gram, code, beam_size=1, threads=1)
    best = error(weight, gram, code)
    for row, group, pair in itertools.product(range(3), range(3), range(256)):
        other = code.codes.clone()
        other[row, group] = torch.tensor([pair // 16, pair % 16])
        changed = AdditiveCode(codes=other, codebooks=code.codebooks, scales=code.scales)
        assert error(weight, gram, changed) >= best * (1 - 1e-5)


@pytest.mark.parametrize(("codebooks", "bits", "tall"), [(1, 8, 1), (2, 6, 1), (3, 4, 2)])
def test_a_weight(codebooks, bits, tall):
    shape = (64, 24, codebooks, tall, 8)
    weight, gram = problem(shape, 11)
    gram[5] = gram[:, 5] = 0  # no input ever
    chosen = SolverSettings(
        num_codebooks=codebooks,
        nbits_per_codebook=bits,
        out_group_size=tall,
        in_group_size=8,
        relative_mse_tolerance=0.01,
        max_epochs=100,
        steps_per_epoch=100,
        beam_size=2,
        init_max_iter=100,
        init_max_points_per_centroid=0,
    )
    one, two = (solve(weight, gram, chosen, threads=threads) for threads in (1, 2))
    assert torch.equal(one.code.codes, two.code.codes)
    assert one.squared_error == pytest.approx(error(weight, gram, one.code), rel=1e-3)
    plain = solve(weight, torch.eye(len(gram)), chosen)
    assert one.squared_error < error(weight, gram, plain.code)
    for tensor in (one.code.codebooks, one.code.scales):
        assert torch.equal(tensor, tensor.half().float())


@given(arrays.arrays(np.int32, (3, 4, 2), elements=st.integers(0, 2**16 - 1)), st.integers(1, 16))
def test_codes_wrap_around(codes, bits):
    codes %= 2**bits
    stored = pack_codes(codes, bits)
    assert stored.dtype == (np.int8 if bits <= 8 else np.int16)
    limit = 2 ** (8 * stored.dtype.itemsize)
    assert np.array_equal(stored.astype(np.int64) % limit, codes)
    assert np.array_equal(unpack_codes(stored), codes)
