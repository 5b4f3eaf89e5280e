"""Reading tensors: exact bytes, and no bytes of a file that changed."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
from tests.checkpoint.builders import entry, safetensors_bytes

from quantd_server.checkpoint.reading import TensorReader
from quantd_server.checkpoint.safetensors_header import TensorEntry, read_header
from quantd_server.errors import CheckpointError

DATA = np.random.default_rng(0).integers(0, 256, 4096, np.uint8).tobytes()


@pytest.fixture
def tensor(tmp_path):
    content = safetensors_bytes({"a": entry(dtype="U8", shape=(4096,), end=4096)}, DATA)
    (tmp_path / "model.safetensors").write_bytes(content)
    return read_header(tmp_path / "model.safetensors").tensors["a"]


def test_pieces(tmp_path, tensor):
    with TensorReader(tmp_path) as reader:
        for offset, length in [(0, 4096), (1, 7), (4095, 1), (4096, 0), (0, 0)]:
            buffer = bytearray(length)
            reader.advise(tensor, offset, length)
            reader.read_into(tensor, offset, memoryview(buffer))
            assert bytes(buffer) == DATA[offset : offset + length]
            reader.release(tensor, offset, length)
        floats = np.zeros(16, np.float32)
        reader.read_into(tensor, 64, memoryview(floats))
        assert floats.tobytes() == DATA[64:128]
        assert bytes(reader.read(tensor)) == DATA
        reader.check_unchanged()
        assert set(reader.identities()) == {"model.safetensors"}


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, 4097), (4096, 1)])
def test_nothing_outside_the_tensor(tmp_path, tensor, offset, length):
    with TensorReader(tmp_path) as reader, pytest.raises(ValueError):
        reader.read_into(tensor, offset, memoryview(bytearray(length)))


def test_short_reads_are_continued(tmp_path, tensor, monkeypatch):
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, to, at: preadv(fd, [to[0][:100]], at))
    with TensorReader(tmp_path) as reader:
        assert bytes(reader.read(tensor)) == DATA


def test_truncated_while_open(tmp_path, tensor):
    with TensorReader(tmp_path) as reader:
        reader.read(tensor)
        os.truncate(tmp_path / "model.safetensors", 1000)
        with pytest.raises(CheckpointError) as caught:
            reader.read(tensor)
        assert caught.value.reason == "SOURCE_CHANGED"
        assert caught.value.kind == "precondition"


def written_in_place(path):
    with path.open("r+b") as stream:
        stream.write(b"\0")
    os.utime(path, ns=(0, 0))


def replaced(path):
    path.with_name("new").write_bytes(path.read_bytes())
    path.with_name("new").rename(path)


@pytest.mark.parametrize("change", [written_in_place, replaced, os.unlink])
def test_changes_are_noticed(tmp_path, tensor, change):
    with TensorReader(tmp_path) as reader:
        reader.read(tensor)
        change(tmp_path / "model.safetensors")
        with pytest.raises(CheckpointError) as caught:
            reader.check_unchanged()
        assert caught.value.reason == "SOURCE_CHANGED"


def test_missing_and_escaping_files(tmp_path):
    with TensorReader(tmp_path) as reader:
        for file, reason in [("absent", "FILE_NOT_FOUND"), ("../x", "PATH_ESCAPES_CHECKPOINT")]:
            odd = TensorEntry(name="a", dtype="U8", shape=(1,), offset=0, nbytes=1, file=file)
            reader.advise(odd, 0, 1)
            with pytest.raises(CheckpointError) as caught:
                reader.read(odd)
            assert caught.value.reason == reason


def test_threads_share_one_descriptor(tmp_path, tensor):
    results = []
    with TensorReader(tmp_path) as reader:
        threads = [
            threading.Thread(target=lambda: results.append(bytes(reader.read(tensor))))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(reader.identities()) == 1
    assert results == [DATA] * 8


def test_a_closed_reader_reads_nothing(tmp_path, tensor):
    reader = TensorReader(tmp_path)
    reader.close()
    with pytest.raises(ValueError):
        reader.read(tensor)
