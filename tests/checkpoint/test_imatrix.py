"""Importance matrices: both forms, and damaged ones."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantd_server.checkpoint.imatrix import read_importance_matrix
from quantd_server.errors import QuantdError

SUMS = {"blk.0.attn_q.weight": [2.0, 4.0, 6.0, 8.0], "blk.0.ffn_down.weight": [1.0, 0.0, 3.0]}


def binary(entries: dict[str, tuple[int, list[float]]]) -> bytes:
    data = struct.pack("<i", len(entries))
    for name, (calls, values) in entries.items():
        data += struct.pack("<i", len(name)) + name.encode()
        data += struct.pack(f"<ii{len(values)}f", calls, len(values), *values)
    return data


def write_gguf(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    writer = gguf.GGUFWriter(path, "imatrix")
    writer.add_type("imatrix")
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def refused(path: Path) -> str:
    with pytest.raises(QuantdError) as caught:
        read_importance_matrix(path)
    assert caught.value.reason == "IMATRIX_INVALID"
    assert str(path.parent) not in caught.value.message
    return caught.value.message


def test_binary_form_holds_means_over_its_calls(tmp_path: Path) -> None:
    path = tmp_path / "imatrix.dat"
    path.write_bytes(binary({name: (2, values) for name, values in SUMS.items()}) + b"\1\0\0\0")
    read = read_importance_matrix(path)
    assert {name: list(values) for name, values in read.items()} == {
        "blk.0.attn_q.weight": [1.0, 2.0, 3.0, 4.0],
        "blk.0.ffn_down.weight": [0.5, 0.0, 1.5],
    }


def test_gguf_form_has_a_count_for_each_expert(tmp_path: Path) -> None:
    sums = np.array([[2, 4], [3, 6], [5, 5]], np.float32)
    counts = np.array([[2], [3], [0]], np.float32)
    path = write_gguf(
        tmp_path / "imatrix.gguf",
        {"blk.0.ffn_up_exps.weight.in_sum2": sums, "blk.0.ffn_up_exps.weight.counts": counts},
    )
    read = read_importance_matrix(path)
    # The third expert met nothing: its columns all weigh the same.
    assert list(read["blk.0.ffn_up_exps.weight"]) == [1, 2, 1, 2, 1, 1]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "too short"),
        (b"\1\0\0\0", "too short"),
        (struct.pack("<ii", 0, 0), "no entries"),
        (struct.pack("<ii", -1, 0), "number of entries is -1"),
        (struct.pack("<ii", 1, 2000), "length of a name is 2000"),
        (struct.pack("<ii", 1, 9) + b"abc", "ends within a name"),
        (binary({"a": (1, [1.0])})[:-1], "ends within the values"),
        (binary({"a": (1, [float("nan")])}), "negative or not finite"),
        (binary({"a": (1, [-1.0])}), "negative or not finite"),
        (b"GGUF" + bytes(40), "damaged"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "imatrix.dat"
    path.write_bytes(data)
    assert message in refused(path)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refused(tmp_path / "absent")
    (tmp_path / "folder").mkdir()
    assert "cannot be read" in refused(tmp_path / "folder")


def test_sums_without_counts_are_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", {"x.in_sum2": np.ones(4, np.float32)})
    assert "no counts" in refused(path)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.dat"
    path.write_bytes(struct.pack("<i", 1) + data)
    try:
        read_importance_matrix(path)
    except QuantdError as error:
        assert error.reason == "IMATRIX_INVALID"  # noqa: PT017 - only one of two outcomes
