"""Cutting and choosing sequences."""

from __future__ import annotations

import itertools
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantd_server.calibration.packing import concatenated, truncated
from quantd_server.calibration.sampling import spread_sample

KNOWN = ([19, 7, 3, 11], [16, 2, 13, 8], [1, 3, 0, 2])

RUNS = st.lists(st.lists(st.integers(10, 2**32 - 1), max_size=30), max_size=12)


@given(RUNS, st.integers(1, 20))
def test_concatenating_loses_nothing_but_the_last_remainder(runs, length):
    sequences = concatenated(runs, length, ())
    everything = list(itertools.chain.from_iterable(runs))
    assert all(len(sequence) == length for sequence in sequences)
    assert list(itertools.chain.from_iterable(sequences)) == everything[: len(sequences) * length]
    assert len(everything) - len(sequences) * length < length


@given(RUNS, st.integers(3, 20), st.sampled_from([(1,), (1, 2)]))
def test_every_sequence_begins_with_the_prefix(runs, length, prefix):
    sequences = concatenated(runs, length, prefix)
    everything = list(itertools.chain.from_iterable(runs))
    body = length - len(prefix)
    assert all(tuple(sequence[: len(prefix)]) == prefix for sequence in sequences)
    bodies = [sequence[len(prefix) :] for sequence in sequences]
    assert list(itertools.chain.from_iterable(bodies)) == everything[: len(sequences) * body]
    assert len(sequences) == len(everything) // body


@given(RUNS, st.integers(2, 20))
def test_runs_may_come_in_any_pieces(runs, length):
    whole = [list(itertools.chain.from_iterable(runs))]
    assert concatenated(runs, length, (1,)) == concatenated(whole, length, (1,))


def test_a_prefix_that_is_there_is_not_repeated():
    sequences = concatenated([[1, 5, 6, 7], [1, 8, 9, 10]], 4, (1,))
    assert sequences == [array("I", [1, 5, 6, 7]), array("I", [1, 8, 9, 10])]


def test_a_prefix_that_leaves_no_place():
    assert concatenated([[5] * 100], 2, (1, 2)) == []


@given(RUNS, st.integers(1, 20))
def test_truncating_takes_the_beginning_of_each_text_that_is_long_enough(texts, length):
    sequences, dropped = truncated(texts, length)
    long_enough = [text[:length] for text in texts if len(text) >= length]
    assert list(map(list, sequences)) == long_enough
    assert dropped == len(texts) - len(long_enough)


@given(st.integers(0, 300), st.integers(1, 100), st.integers(0, 2**64 - 1))
def test_a_sample_is_spread_over_the_whole(count, wanted, seed):
    chosen = spread_sample(count, wanted, seed)
    assert len(set(chosen)) == len(chosen) == min(count, wanted)
    assert set(chosen) <= set(range(count))
    if count > wanted:
        ordered = sorted(chosen)
        bounds = [place * count // wanted for place in range(wanted + 1)]
        inside = zip(bounds, ordered, bounds[1:], strict=False)
        assert all(low <= number < high for low, number, high in inside)


def test_the_seed_decides_and_nothing_else():
    # Written down: another version of Python, or of this code, must not draw otherwise.
    assert spread_sample(20, 4, 0) == KNOWN[0]
    assert spread_sample(20, 4, 1) == KNOWN[1]
    assert spread_sample(4, 9, 2**64 - 1) == KNOWN[2]


@pytest.mark.parametrize("seed", range(3))
def test_every_seed_gives_another_order(seed):
    assert spread_sample(1000, 100, seed) != spread_sample(1000, 100, seed + 1)
