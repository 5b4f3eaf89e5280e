"""Files of texts, of any size and in any state."""

from __future__ import annotations

import json
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantd_server.calibration import text_file
from quantd_server.calibration.text_file import WINDOWS, TextFile
from quantd_server.errors import QuantdError


def read(path, *, limit=1 << 20, spread=True):
    with TextFile(str(path), "f", limit=limit, spread=spread) as file:
        return [record.text for record in file.records()]


def refusal(path, **options):
    with pytest.raises(QuantdError) as caught:
        read(path, **options)
    assert str(path.parent) not in caught.value.message
    return caught.value


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("texts")


LINES = st.lists(st.sampled_from(["", " ", "one", "two words", "日本", "\t."]), max_size=20)


@given(LINES, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_paragraphs_are_what_blank_lines_separate(folder, lines, end, ended):
    path = folder / "p.txt"
    path.write_bytes((end.join(lines) + end * ended).encode())
    expected = [[]]
    for line in lines:
        if line.strip():
            expected[-1].append(line)
        else:
            expected.append([])
    assert read(path) == [end.join(paragraph) for paragraph in expected if paragraph]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n")), max_size=20))
def test_lines(folder, lines):
    path = folder / "l.jsonl"
    path.write_bytes("\n".join(lines).encode())
    expected = [line for line in lines if line.removeprefix("\ufeff").strip()]
    assert [text.removeprefix("\ufeff") for text in read(path)] == [
        line.removeprefix("\ufeff") for line in expected
    ]


@pytest.mark.parametrize("separator", ["\n\n", "\n", " "])
@pytest.mark.parametrize("spread", [True, False])
def test_of_a_large_text_only_parts_are_read(tmp_path, separator, spread):
    words = [f"Wört{number:06}" for number in range(100_000)]
    path = tmp_path / "large.txt"
    path.write_text(separator.join(words))
    limit = 64_000
    texts = read(path, limit=limit, spread=spread)
    assert 0.8 * limit < sum(len(text.encode()) for text in texts) <= limit
    found = [int(number) for text in texts for number in re.findall(r"Wört(\d{6})", text)]
    assert found == sorted(set(found))
    # Every part of the text, or its beginning without a gap.
    if spread:
        assert {number * WINDOWS // 100_000 for number in found} == set(range(WINDOWS))
    else:
        assert found == list(range(len(found)))


def test_of_large_json_lines_whole_ones_are_read(tmp_path):
    path = tmp_path / "large.jsonl"
    lines = [json.dumps({"text": f"{number} " * (number % 500)}) for number in range(3000)]
    path.write_text("\n".join(lines))
    found = [json.loads(text)["text"].split(" ")[0] for text in read(path, limit=64_000)]
    assert len(found) == len(set(found)) >= WINDOWS // 2


@pytest.mark.parametrize("name", ["huge.txt", "huge.jsonl"])
def test_a_file_of_ten_gigabytes_takes_no_time(tmp_path, name):
    path = tmp_path / name
    with path.open("wb") as file:
        for number in range(100):
            file.seek(number * 10**8)
            file.write(b'"end of hole"\n' + b'"a line of text"\n' * 8000)
    assert path.stat().st_size > 9.9e9
    before = _bytes_read()
    if name.endswith("jsonl"):  # the holes are very long lines
        assert refusal(path, limit=1 << 20).reason == "JSON_LINE_INVALID"
    else:
        assert sum(map(len, read(path, limit=1 << 20))) <= 1 << 20
    assert _bytes_read() - before < 32 << 20


def _bytes_read() -> int:
    with open("/proc/self/io") as file:
        return int(next(line for line in file if line.startswith("rchar")).split()[1])


def test_a_paragraph_without_end_is_cut_between_words(tmp_path, monkeypatch):
    monkeypatch.setattr(text_file, "MAX_RECORD_BYTES", 100)
    path = tmp_path / "long.txt"
    path.write_text("word " * 1000)
    texts = read(path)
    assert len(texts) == 50
    assert "".join(texts).split() == ["word"] * 1000
    path.write_text("é" * 1000)
    assert "".join(read(path)) == "é" * 1000


def test_a_json_line_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(text_file, "MAX_RECORD_BYTES", 100)
    path = tmp_path / "long.jsonl"
    path.write_text("{}\n" + "x" * 100)
    error = refusal(path)
    assert (error.reason, "line 2" in error.message) == ("JSON_LINE_INVALID", True)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"first\n\nna\xefve\n")
    error = refusal(path)
    assert (error.reason, error.field) == ("TEXT_NOT_UTF8", "f")
    assert "byte 9 " in error.message


def test_files_that_are_no_files_of_texts(tmp_path):
    (tmp_path / "a.csv").write_text("a,b")
    assert refusal(tmp_path / "a.csv").reason == "TEXT_FILE_FORMAT"
    (tmp_path / "folder.txt").mkdir()
    assert refusal(tmp_path / "folder.txt").reason == "TEXT_FILE_UNREADABLE"
    os.mkfifo(tmp_path / "fifo.txt")
    assert refusal(tmp_path / "fifo.txt").reason == "TEXT_FILE_UNREADABLE"
    assert refusal(tmp_path / "absent.txt").reason == "TEXT_FILE_UNREADABLE"


def test_a_byte_order_mark_is_no_text(tmp_path):
    path = tmp_path / "bom.txt"
    path.write_bytes(b"\xef\xbb\xbfHello")
    assert read(path) == ["Hello"]
