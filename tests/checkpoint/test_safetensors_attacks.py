"""Every way a safetensors file can be wrong has its own stable reason."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from tests.checkpoint.builders import entry, safetensors_bytes
from tests.checkpoint.safetensors_attacks import ATTACKS

from quantd_server.checkpoint import safetensors_header
from quantd_server.checkpoint.safetensors_header import read_header
from quantd_server.errors import CheckpointError, Severity

GOOD = safetensors_bytes({"a": entry(), "b": entry(begin=8, end=16)}, bytes(16))


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused_with_its_reason(tmp_path, name):
    reason, content = ATTACKS[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert caught.value.reason == reason
    finding = caught.value.finding
    assert finding.severity is Severity.ERROR
    assert "model.safetensors" in finding.message
    assert finding.remedy
    assert str(tmp_path) not in finding.message + finding.remedy
    assert len(finding.message) < 600


# Where we are stricter than the library, which takes unknown fields, empty names, white space
# before the header and, of two tensors of one name, the last.
LAXER_LIBRARY = {
    "name_empty",
    "tensor_twice",
    "entry_with_more",
    "leading_space",
}


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - LAXER_LIBRARY))
def test_the_library_refuses_it_as_well(tmp_path, name):
    path = tmp_path / "model.safetensors"
    path.write_bytes(ATTACKS[name][1])
    with pytest.raises((SafetensorError, OSError)):
        safe_open(path, "np").__enter__()


@pytest.mark.parametrize("name", sorted(LAXER_LIBRARY))
def test_where_the_library_is_laxer(tmp_path, name):
    path = tmp_path / "model.safetensors"
    path.write_bytes(ATTACKS[name][1])
    with safe_open(path, "np"):
        pass


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        read_header(tmp_path / "model.safetensors")
    assert (caught.value.reason, caught.value.kind) == ("FILE_NOT_FOUND", "not_found")


def test_fifo_neither_blocks_nor_is_read(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        read_header(tmp_path / "model.safetensors")
    assert caught.value.reason == "NOT_A_REGULAR_FILE"


def test_link_out_of_the_folder(tmp_path):
    (tmp_path / "secret").write_bytes(GOOD)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").symlink_to("../secret")
    with pytest.raises(CheckpointError) as caught:
        read_header(tmp_path / "model" / "model.safetensors")
    assert caught.value.reason == "PATH_ESCAPES_CHECKPOINT"


def test_link_loop(tmp_path):
    (tmp_path / "model.safetensors").symlink_to("model.safetensors")
    with pytest.raises(CheckpointError):
        read_header(tmp_path / "model.safetensors")


def test_hub_cache_links_into_its_blobs(tmp_path):
    snapshot = tmp_path / "snapshots" / "revision"
    snapshot.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "hash").write_bytes(GOOD)
    (snapshot / "model.safetensors").symlink_to("../../blobs/hash")
    assert read_header(snapshot / "model.safetensors").tensors["a"].file == "model.safetensors"


def test_too_many_tensors(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors_header, "MAX_TENSORS", 1)
    path = tmp_path / "model.safetensors"
    path.write_bytes(GOOD)
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert caught.value.reason == "TOO_MANY_TENSORS"


@pytest.mark.parametrize("unit", [b"[],", b"{},", b'"":[],', b"1e1,"])
def test_a_header_of_many_small_values_is_refused_before_it_is_parsed(tmp_path, unit):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes(b'{"a":[' + unit * 5_000_000 + b"1]}"))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    assert caught.value.reason == "HEADER_TOO_COMPLEX"


@settings(max_examples=300, deadline=None)
@given(
    edits=st.lists(
        st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=6
    ),
    cut=st.integers(0, len(GOOD)),
    tail=st.binary(max_size=16),
)
@example(edits=[(0, 0)], cut=len(GOOD), tail=b"")
def test_mutations_raise_nothing_else_and_stay_small(tmp_path_factory, edits, cut, tail):
    content = bytearray(GOOD)
    for position, value in edits:
        content[position] = value
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    path.write_bytes(bytes(content[:cut]) + tail)
    tracemalloc.start()
    try:
        read_header(path)
    except CheckpointError:
        pass
    else:
        # What we accept, the library accepts as well, and sees the same.
        with safe_open(path, "np") as opened:
            assert set(opened.keys()) == set(read_header(path).tensors)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1 << 20


def test_only_the_header_is_read(tmp_path):
    path = tmp_path / "model.safetensors"
    size = 1 << 40
    raw = json.dumps({"a": entry(dtype="U8", shape=(size,), end=size)}).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw)
    os.truncate(path, 8 + len(raw) + size)  # sparse
    assert read_header(path).tensors["a"].nbytes == size
