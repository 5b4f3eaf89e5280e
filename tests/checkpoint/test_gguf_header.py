"""Files written by the gguf package are read back equal; every malformation has its reason."""

from __future__ import annotations

import os
import struct
import tracemalloc

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.checkpoint.builders import array, gguf_bytes, pair, tensor, text
from tests.checkpoint.gguf_attacks import ATTACKS, u64

from quantd_server.checkpoint.gguf_header import read_gguf_header
from quantd_server.checkpoint.gguf_types import GGML_TYPES
from quantd_server.checkpoint.opening import GgufCheckpoint, open_checkpoint, open_gguf
from quantd_server.checkpoint.reading import TensorReader
from quantd_server.errors import CheckpointError

GOOD = gguf_bytes(
    [
        pair("general.architecture", "string", text("llama")),
        pair("general.alignment", "uint32", struct.pack("<I", 32)),
        pair("tokens", "array", array("string", 2, text("a") + text("b"))),
        pair("flags", "array", array("bool", 2, b"\0\1")),
    ],
    [tensor("a", (8,)), tensor("b", (32, 2), 2, 32)],
    bytes(32 + 36),
)


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused_with_its_reason(tmp_path, name):
    reason, content = ATTACKS[name]
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            read_gguf_header(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.reason == reason
    finding = caught.value.finding
    assert "model.gguf" in finding.message
    assert finding.remedy
    assert str(tmp_path) not in finding.message + finding.remedy


@pytest.mark.parametrize("length", range(len(GOOD)))
def test_every_truncation_is_refused(tmp_path, length):
    path = tmp_path / "model.gguf"
    path.write_bytes(GOOD[:length])
    with pytest.raises(CheckpointError):
        read_gguf_header(path)


def test_too_many_elements(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes([pair("a", "array", array("uint8", 4_000_001, bytes(4_000_001)))]))
    with pytest.raises(CheckpointError) as caught:
        read_gguf_header(path)
    assert caught.value.reason == "TOO_MANY_ELEMENTS"


def test_a_header_longer_than_the_limit(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes([pair("a", "array", array("string", 2, u64(300_000_000)))])[:-8])
    os.truncate(path, 400_000_000)  # sparse
    with pytest.raises(CheckpointError) as caught:
        read_gguf_header(path)
    assert caught.value.reason == "STRING_TOO_LONG"


@settings(max_examples=400, deadline=None)
@given(
    edits=st.lists(
        st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=6
    ),
    cut=st.integers(0, len(GOOD)),
    tail=st.binary(max_size=64),
)
def test_mutations_raise_nothing_else_and_stay_small(tmp_path_factory, edits, cut, tail):
    content = bytearray(GOOD)
    for position, value in edits:
        content[position] = value
    path = tmp_path_factory.getbasetemp() / "mutated.gguf"
    path.write_bytes(bytes(content[:cut]) + tail)
    tracemalloc.start()
    try:
        open_gguf(path)
    except CheckpointError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 << 20


def test_the_type_table_is_that_of_the_gguf_package():
    ours = {kind.name: (kind.id, kind.elements, kind.nbytes) for kind in GGML_TYPES.values()}
    theirs = {kind.name: (kind.value, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert ours == theirs


INTEGERS = {
    f"{sign}int{bits}": (0 if sign else -(2 ** (bits - 1)), 2 ** (bits if sign else bits - 1) - 1)
    for sign in ("u", "")
    for bits in (8, 16, 32, 64)
}
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.one_of(
    *(st.tuples(st.just(kind), st.integers(low, high)) for kind, (low, high) in INTEGERS.items()),
    st.tuples(st.just("float32"), st.floats(width=32, allow_nan=False)),
    st.tuples(st.just("float64"), st.floats(allow_nan=False)),
    st.tuples(st.just("bool"), st.booleans()),
    st.tuples(st.just("string"), texts),
    st.tuples(st.just("array:string"), st.lists(texts, min_size=1, max_size=5)),
    st.tuples(st.just("array:int32"), st.lists(st.integers(-9, 9), min_size=1, max_size=5)),
    st.tuples(st.just("array:float32"), st.lists(st.floats(width=32, allow_nan=False), min_size=1)),
    st.tuples(st.just("array:bool"), st.lists(st.booleans(), min_size=1, max_size=5)),
)
kinds = st.sampled_from(["F32", "F16", "BF16", "I8", "F64", "Q4_0", "Q8_0", "Q4_K", "TQ1_0"])


@settings(max_examples=60, deadline=None)
@given(
    metadata=st.dictionaries(
        st.text("abcdefgh.", min_size=1, max_size=9).map(lambda key: "x." + key), values, max_size=6
    ),
    tensors=st.lists(
        st.tuples(kinds, st.lists(st.integers(1, 3), min_size=1, max_size=4)), max_size=5
    ),
    alignment=st.sampled_from([None, 8, 32, 64]),
)
def test_what_the_gguf_package_writes(tmp_path_factory, metadata, tensors, alignment):
    path = tmp_path_factory.getbasetemp() / "written.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    for key, (kind, value) in metadata.items():
        if kind.startswith("array:"):
            writer.add_key_value(
                key, value, gguf.GGUFValueType.ARRAY, gguf.GGUFValueType[kind[6:].upper()]
            )
        else:
            writer.add_key_value(key, value, gguf.GGUFValueType[kind.upper()])
    written = {}
    for place, (kind, sizes) in enumerate(tensors):
        block = GGML_TYPES[kind]
        rows, row = sizes[:-1], sizes[-1] * block.nbytes
        data = np.random.default_rng(place).integers(0, 256, (*rows, row), np.uint8)
        writer.add_tensor(f"t{place}", data, raw_dtype=gguf.GGMLQuantizationType[kind])
        written[f"t{place}"] = (kind, (*rows, sizes[-1] * block.elements), data.tobytes())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    header = read_gguf_header(path)
    assert header.version == 3
    assert header.alignment == (alignment or 32)
    for key, (kind, value) in metadata.items():
        assert (header.metadata[key].type, header.metadata[key].value) == (kind, value)
    assert list(header.tensors) == list(written)
    with TensorReader(path.parent) as reader:
        for name, (kind, shape, data) in written.items():
            entry = header.tensors[name]
            assert (entry.ggml_type, entry.shape, entry.ne) == (kind, shape, shape[::-1])
            assert bytes(reader.read(entry)) == data


def test_open_gguf(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(GOOD)
    checkpoint = open_checkpoint(path)
    assert isinstance(checkpoint, GgufCheckpoint)
    assert checkpoint.architecture == "llama"
    assert checkpoint.metadata["flags"].value == [False, True]
    assert checkpoint.tensors["b"].shape == (2, 32)
    assert checkpoint.total_bytes == len(GOOD)


NAME = pair("general.architecture", "string", text("llama"))


@pytest.mark.parametrize(
    ("reason", "content"),
    [
        ("ARCHITECTURE_MISSING", gguf_bytes(tensors=[tensor()], data=bytes(32))),
        (
            "ARCHITECTURE_MISSING",
            gguf_bytes([pair("general.architecture", "uint8", b"\1")], [tensor()], bytes(32)),
        ),
        (
            "GGUF_SPLIT",
            gguf_bytes([NAME, pair("split.count", "uint16", b"\2\0")], [tensor()], bytes(32)),
        ),
        ("NO_WEIGHTS", gguf_bytes([NAME])),
    ],
)
def test_open_gguf_refuses(tmp_path, reason, content):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        open_gguf(path)
    assert caught.value.reason == reason
