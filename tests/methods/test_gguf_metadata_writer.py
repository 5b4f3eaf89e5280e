"""The header that we lay out is the file that readers find."""

from __future__ import annotations

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantd_server.checkpoint.gguf_header import MetadataValue, read_gguf_header
from quantd_server.checkpoint.gguf_types import GGML_TYPES
from quantd_server.methods.gguf.description import MetadataEntry, array, boolean, string, uint32
from quantd_server.methods.gguf.metadata_writer import (
    TypedTensor,
    build_header,
    metadata_of_source,
    tensor_nbytes,
)

METADATA = [
    string("general.name", "naïve 東京"),
    uint32("llama.block_count", 2),
    boolean("tokenizer.ggml.add_bos_token", value=True),
    array("tokenizer.ggml.tokens", "string", ["a", "Ġb", ""]),
    array("tokenizer.ggml.scores", "float32", [-1.0, 0.5, 2]),
    array("tokenizer.ggml.token_type", "int32", [1, 3, 5]),
    array("gemma3.attention.sliding_window_pattern", "bool", [True, False]),
    MetadataEntry(key="x.double", type="float64", value=1e300),
    MetadataEntry(key="x.small", type="int8", value=-3),
    MetadataEntry(key="x.large", type="uint64", value=2**63),
]
TYPES = [name for name in GGML_TYPES if name not in ("Q8_1", "Q8_K")]


def write(path, layout):
    with path.open("wb") as file:
        file.truncate(layout.file_size)
        file.write(layout.header)
    return path


def test_the_gguf_package_reads_the_file(tmp_path):
    tensors = [
        TypedTensor(name="token_embd.weight", shape=(3, 256), ggml_type="Q4_K"),
        TypedTensor(name="blk.0.attn_norm.weight", shape=(7,), ggml_type="F32"),
        TypedTensor(name="blk.0.ffn_up_exps.weight", shape=(2, 5, 32), ggml_type="Q5_0"),
    ]
    layout = build_header("llama", METADATA, tensors, 15)
    reader = gguf.GGUFReader(write(tmp_path / "x.gguf", layout))
    assert reader.get_field("general.architecture").contents() == "llama"
    assert reader.get_field("general.file_type").contents() == 15
    assert reader.get_field("general.quantization_version").contents() == 2
    for entry in METADATA:
        assert reader.get_field(entry.key).contents() == entry.value
    assert [t.name for t in reader.tensors] == [t.name for t in tensors]
    for tensor, read in zip(tensors, reader.tensors, strict=True):
        assert tuple(reversed(read.shape.tolist())) == tensor.shape
        assert read.tensor_type.name == tensor.ggml_type
        assert layout.places[tensor.name] == (read.data_offset, read.n_bytes)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.sampled_from(TYPES), st.integers(1, 3), st.integers(1, 3)), max_size=6)
)
def test_our_reader_finds_every_tensor_in_its_place(tmp_path, described):
    tensors = [
        TypedTensor(name=f"t{i}", shape=(rows, blocks * GGML_TYPES[kind].elements), ggml_type=kind)
        for i, (kind, rows, blocks) in enumerate(described)
    ]
    layout = build_header("llama", METADATA, tensors, 0)
    header = read_gguf_header(write(tmp_path / "x.gguf", layout))
    assert {n: (e.offset, e.nbytes) for n, e in header.tensors.items()} == layout.places
    assert header.data_start == len(layout.header)
    assert header.file_size == layout.file_size


def test_metadata_of_a_gguf_source_survives(tmp_path):
    first = build_header("llama", METADATA, [], 1)
    header = read_gguf_header(write(tmp_path / "a.gguf", first))
    extra = {
        "split.count": MetadataValue(type="uint16", value=2),
        "x.empty": MetadataValue(type="array:string", value=[]),
    }
    kept = metadata_of_source(header.metadata | extra)
    second = build_header("llama", kept, [], 1)
    assert second.header == first.header
    third = read_gguf_header(write(tmp_path / "b.gguf", build_header("llama", kept, [], 15)))
    changed = {k for k, v in third.metadata.items() if header.metadata[k] != v}
    assert changed == {"general.file_type"}


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="rows of 576 are no multiple of 256"):
        tensor_nbytes((4, 576), "Q4_K")
    assert tensor_nbytes((4, 576), "Q8_0") == 4 * 18 * 34


def test_nested_arrays_are_refused():
    entry = MetadataEntry(key="x", type="array:array", value=[[1]])
    with pytest.raises(ValueError, match="array of arrays"):
        build_header("llama", [entry], [], 0)


def test_sizes_are_those_of_the_gguf_package():
    for name in TYPES:
        elements, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
        assert tensor_nbytes((3, 2 * elements), name) == 6 * nbytes
