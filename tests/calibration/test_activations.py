"""The store of activations: what is put comes back, wherever it was."""

from __future__ import annotations

import errno
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantd_server.calibration.activations import ActivationStore, FreeSpace
from quantd_server.errors import QuantdError

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@settings(deadline=None)
@given(
    budget=st.integers(0, 2000),
    commands=st.lists(
        st.tuples(
            st.sampled_from(["put", "pop", "drop", "get"]),
            st.integers(0, 4),
            st.sampled_from([0, 1, 7, 100]),
            st.sampled_from(DTYPES),
        ),
        max_size=30,
    ),
)
def test_behaves_like_a_dictionary(budget, commands, tmp_path_factory):
    expected: dict[int, torch.Tensor] = {}
    with ActivationStore(budget, tmp_path_factory.getbasetemp()) as store:
        for command, key, size, dtype in commands:
            if command == "put":
                expected[key] = torch.randn(size, 3).to(dtype)
                store.put(key, expected[key].clone())
            elif command == "drop":
                store.drop(key)
                expected.pop(key, None)
            elif key not in expected:
                with pytest.raises(KeyError):
                    store.get(key)
            else:
                found = store.pop(key) if command == "pop" else store.get(key)
                assert torch.equal(found, expected[key])
                assert found.dtype == expected[key].dtype
                if command == "pop":
                    del expected[key]
            assert store.memory_bytes <= budget
            assert all((key in store) == (key in expected) for key in range(5))


def test_leaves_no_file_behind_even_while_open(tmp_path):
    with ActivationStore(0, tmp_path) as store:
        store.put("a", torch.zeros(100))
        assert store.spilled_bytes == 400
        assert list(tmp_path.iterdir()) == []


def test_freed_places_are_used_again(tmp_path):
    with ActivationStore(0, tmp_path) as store:
        for number in range(50):
            store.put("a", torch.full((100,), float(number)))
            store.put("b", torch.zeros(100))
        assert store.spilled_bytes == 2 * 400
        assert float(store.get("a")[0]) == 49


def test_a_view_does_not_keep_its_base(tmp_path):
    with ActivationStore(1000, tmp_path) as store:
        store.put("a", torch.zeros(1000, 10)[:10])
        assert store.get("a").untyped_storage().nbytes() == 400


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, "DISK_FULL"), (errno.EIO, "SCRATCH_FAILED")]
)
def test_a_full_disk_is_a_domain_error(number, reason, tmp_path, monkeypatch):
    def fail(*_args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", fail)
    with ActivationStore(0, tmp_path) as store:
        with pytest.raises(QuantdError) as raised:
            store.put("a", torch.zeros(10))
        assert raised.value.reason == reason
        assert str(tmp_path) not in raised.value.message


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 50), st.integers(0, 99)), max_size=80))
def test_places_in_the_file_do_not_overlap(commands):
    space = FreeSpace()
    taken: dict[int, int] = {}
    most = 0
    for take, nbytes, choice in commands:
        if take or not taken:
            offset = space.take(nbytes)
            for other, length in taken.items():
                assert offset + nbytes <= other or other + length <= offset
            taken[offset] = nbytes
        else:
            offset = sorted(taken)[choice % len(taken)]
            space.give(offset, taken.pop(offset))
        most = max(most, *(offset + length for offset, length in taken.items()), 0)
        assert space.end == most
    for offset, length in taken.items():
        space.give(offset, length)
    assert not most or space.take(most) == 0


def test_the_file_does_not_grow_with_inputs_of_ever_other_sizes():
    space = FreeSpace()
    generator = torch.Generator().manual_seed(0)
    held: list[tuple[int, int]] = []
    ends = []
    for _ in range(40):  # blocks, each with the inputs of 8 experts over 16 micro-batches
        sizes = torch.randint(100, 3000, (128,), generator=generator).tolist()
        held += [(space.take(size), size) for size in sizes]
        ends.append(space.end)
        while held:
            space.give(*held.pop(0))
    assert max(ends) <= 1.2 * ends[0]
