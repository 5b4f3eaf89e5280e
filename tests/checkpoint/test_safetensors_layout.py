"""Files that we lay out are what the safetensors library and torch read, and the reverse."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantd_server.checkpoint.dtypes import DTYPE_BITS, element_size, tensor_nbytes
from quantd_server.checkpoint.output import OutputDirectory
from quantd_server.checkpoint.reading import TensorReader
from quantd_server.checkpoint.safetensors_header import read_header
from quantd_server.checkpoint.safetensors_layout import (
    OutputTensor,
    plan_files,
    seal,
    seal_index,
)

TORCH = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "C64": torch.complex64,
}  # fmt: skip

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name != "__metadata__"
)
tensors_strategy = st.dictionaries(
    names,
    st.tuples(
        st.sampled_from(sorted(TORCH)),
        st.lists(st.integers(0, 4), max_size=3).map(tuple),
        st.sampled_from(["", "", "g", "h"]),
    ),
    min_size=1,
    max_size=8,
)


def content_of(place: int, nbytes: int) -> bytes:
    return np.random.default_rng(place).integers(0, 2, nbytes, np.uint8).tobytes()


@settings(max_examples=100, deadline=None)
@given(tensors=tensors_strategy, max_shard_size=st.sampled_from([1, 64, 200, 10**9]))
def test_what_we_lay_out_is_what_the_library_reads(tmp_path_factory, tensors, max_shard_size):
    planned = [
        OutputTensor(name=name, dtype=dtype, shape=shape, group=group)
        for name, (dtype, shape, group) in tensors.items()
    ]
    layout = plan_files(planned, max_shard_size)
    assert layout == plan_files(planned, max_shard_size)
    contents = {
        tensor.name: content_of(place, tensor_nbytes(tensor.dtype, tensor.shape))
        for place, tensor in enumerate(planned)
    }
    with OutputDirectory(tmp_path_factory.mktemp("layout") / "out", "j") as output:
        seen = {}
        for file in layout.files:
            output.create(file.name, file.size)
            output.write_at(file.name, 0, file.header)
            for name, place in file.entries.items():
                assert place.offset % element_size(tensors[name][0]) == 0
                output.write_at(file.name, place.offset, contents[name])
            loaded = safetensors.torch.load_file(output.path(file.name))
            assert set(loaded) == set(file.entries)
            for name, tensor in loaded.items():
                dtype, shape, _ = tensors[name]
                assert (tensor.dtype, tuple(tensor.shape)) == (TORCH[dtype], shape)
                raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
                assert raw == contents[name]
                seen[name] = file.name
            header = read_header(output.path(file.name))
            assert header.metadata == {"format": "pt"}
            assert {
                name: (entry.offset, entry.nbytes) for name, entry in header.tensors.items()
            } == {name: (place.offset, place.nbytes) for name, place in file.entries.items()}
    assert set(seen) == set(tensors)
    for group in ("g", "h"):
        assert len({seen[n] for n, (_, _, g) in tensors.items() if g == group}) <= 1
    assert layout.total_size == sum(map(len, contents.values()))
    if len(layout.files) == 1:
        assert (layout.files[0].name, layout.index) == ("model.safetensors", None)
    else:
        index = json.loads(layout.index)
        assert index == {"metadata": {"total_size": layout.total_size}, "weight_map": seen}
    for name in tensors:
        assert layout.locate(name)[0] == seen[name]
    for file in layout.files:
        groups = {tensors[name][2] or name for name in file.entries}
        nbytes = sum(place.nbytes for place in file.entries.values())
        assert nbytes <= max_shard_size or len(groups) == 1 or nbytes == 0


@settings(max_examples=100, deadline=None)
@given(
    tensors=tensors_strategy,
    lengths=st.lists(
        st.integers(0, 2000).flatmap(lambda most: st.tuples(st.just(most), st.integers(0, most))),
        min_size=1,
        max_size=5,
    ),
    max_shard_size=st.sampled_from([64, 2000, 10**9]),
)
def test_files_keep_their_size_when_tensors_turn_out_shorter(
    tmp_path_factory, tensors, lengths, max_shard_size
):
    tensors = {f"fixed {name}": tensor for name, tensor in tensors.items()}
    variable = {f"variable {place}": pair for place, pair in enumerate(lengths)}
    planned = [
        OutputTensor(name=name, dtype=dtype, shape=shape, group=group)
        for name, (dtype, shape, group) in tensors.items()
    ] + [
        OutputTensor(name=name, dtype="U8", shape=(most,), variable_length=True)
        for name, (most, _) in variable.items()
    ]
    layout = plan_files(planned, max_shard_size)
    contents = {
        tensor.name: content_of(
            place, variable.get(tensor.name, (0, tensor_nbytes(tensor.dtype, tensor.shape)))[1]
        )
        for place, tensor in enumerate(planned)
    }
    folder = tmp_path_factory.mktemp("sealed")
    for file in layout.files:
        path = folder / file.name
        path.write_bytes(file.header.ljust(file.size, b"?"))
        with path.open("r+b") as stream:
            for name in file.entries.keys() & tensors:  # before the others' lengths are known
                stream.seek(file.entries[name].offset)
                stream.write(contents[name])
            own = {n: len(contents[n]) for n in file.entries if n in variable}
            if own:
                header, places = seal(file.header, own)
                stream.seek(0)
                stream.write(header)
                for name, place in places.items():
                    stream.seek(place)
                    stream.write(contents[name])
        assert path.stat().st_size == file.size
        for loaded in (
            safetensors.torch.load_file(path),
            safetensors.torch.load(path.read_bytes()),
        ):
            assert loaded.keys() == file.entries.keys()
            for name, tensor in loaded.items():
                raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
                assert raw == contents[name]
        for name, entry in read_header(path).tensors.items():
            assert entry.offset % element_size(entry.dtype) == 0
            assert entry.nbytes == len(contents[name])
    if layout.index:
        total = sum(map(len, contents.values()))
        index = json.loads(seal_index(layout.index, layout.total_size - total))
        assert index["metadata"] == {"total_size": total}
        assert index["weight_map"] == json.loads(layout.index)["weight_map"]


def test_a_tensor_that_turns_out_longer_than_planned():
    tensor = OutputTensor(name="a", dtype="U8", shape=(3,), variable_length=True)
    header = plan_files([tensor], 100).files[0].header
    with pytest.raises(ValueError, match="a has 4 bytes; at most 3 fit"):
        seal(header, {"a": 4})


@settings(max_examples=100, deadline=None)
@given(tensors=tensors_strategy, metadata=st.dictionaries(names, names, max_size=3))
def test_what_the_library_writes_is_what_we_read(tmp_path_factory, tensors, metadata):
    path = tmp_path_factory.mktemp("library") / "model.safetensors"
    written = {
        name: torch.frombuffer(
            bytearray(content_of(place, tensor_nbytes(dtype, shape))), dtype=TORCH[dtype]
        ).reshape(shape)
        if math.prod(shape)
        else torch.empty(shape, dtype=TORCH[dtype])
        for place, (name, (dtype, shape, _)) in enumerate(tensors.items())
    }
    safetensors.torch.save_file(written, path, metadata)
    header = read_header(path)
    assert header.metadata == metadata
    assert set(header.tensors) == set(tensors)
    with TensorReader(path.parent) as reader:
        for place, (name, (dtype, shape, _)) in enumerate(tensors.items()):
            entry = header.tensors[name]
            assert (entry.dtype, entry.shape) == (dtype, shape)
            assert bytes(reader.read(entry)) == content_of(place, entry.nbytes)


def test_names_of_shards():
    tensors = [OutputTensor(name=f"t{i}", dtype="U8", shape=(10,)) for i in range(3)]
    layout = plan_files(tensors, 20)
    assert [file.name for file in layout.files] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert [list(file.entries) for file in layout.files] == [["t0", "t1"], ["t2"]]


def test_the_order_within_a_file_does_not_depend_on_the_order_given():
    tensors = [
        OutputTensor(name=name, dtype=dtype, shape=(3,))
        for name, dtype in [("b", "U8"), ("a", "U8"), ("c", "F32"), ("d", "I64")]
    ]
    file = plan_files(tensors, 1000).files[0]
    assert list(file.entries) == ["d", "c", "a", "b"]
    assert plan_files(tensors[::-1], 1000).files[0] == file


@pytest.mark.parametrize(
    ("tensors", "size"),
    [
        ([("a", "U8"), ("a", "U8")], 10),
        ([("__metadata__", "U8")], 10),
        ([("a", "U9")], 10),
        ([("a", "U8")], 0),
    ],
)
def test_plans_that_cannot_be(tensors, size):
    with pytest.raises(ValueError):
        plan_files([OutputTensor(name=n, dtype=d, shape=(1,)) for n, d in tensors], size)


def test_an_empty_plan_is_one_readable_file(tmp_path):
    file = plan_files([], 10).files[0]
    (tmp_path / file.name).write_bytes(file.header)
    assert safetensors.numpy.load_file(tmp_path / file.name) == {}


def test_dtype_sizes_are_those_of_the_library():
    for name, dtype in TORCH.items():
        assert element_size(name) == dtype.itemsize
    assert {"F8_E8M0", "F4"} <= set(DTYPE_BITS)
    with pytest.raises(ValueError):
        element_size("F4")
    assert tensor_nbytes("F4", (3, 2)) == 3
