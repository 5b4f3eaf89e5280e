"""Where results go, and what a private server is allowed to touch."""

from __future__ import annotations

import pytest

import quantd
from quantd_server.cli import text
from quantd_server.cli.paths import absolute, default_output, local_path
from quantd_server.cli.private_server import output_roots, source_roots


@pytest.mark.parametrize(
    ("source", "method", "output"),
    [
        ("/models/smollm2", quantd.gguf(), "/models/smollm2-Q4_K_M.gguf"),
        ("/models/smollm2", quantd.gguf("Q8_0"), "/models/smollm2-Q8_0.gguf"),
        ("/models/phi-3.5/", quantd.gguf("Q8_0"), "/models/phi-3.5-Q8_0.gguf"),
        ("/models/m-BF16.gguf", quantd.gguf("Q6_K"), "/models/m-Q6_K.gguf"),
        ("/models/m.gguf", quantd.gguf("Q6_K"), "/models/m-Q6_K.gguf"),
        ("file:///models/my%20model", quantd.gguf("Q6_K"), "/models/my model-Q6_K.gguf"),
        ("/models/m", quantd.bitsandbytes_4bit("nf4"), "/models/m-nf4"),
        ("/models/m", quantd.bitsandbytes_4bit(), "/models/m-fp4"),
        ("/models/m", quantd.bitsandbytes_8bit(), "/models/m-int8"),
        ("/models/m", quantd.gptq(8), "/models/m-gptq-8bit"),
        ("/models/m", quantd.awq(), "/models/m-awq-4bit"),
        ("/models/m", quantd.aqlm(), "/models/m-aqlm"),
    ],
)
def test_default_output(source, method, output):
    assert default_output(source, method) == output


def test_uris_stay_as_they_are():
    assert absolute("file:/models/m") == "file:/models/m"
    assert absolute("hf:org/model") == "hf:org/model"
    assert local_path("hf:org/model") is None
    assert local_path("file:///models/m") == "/models/m"


def test_a_private_server_reads_the_source_and_what_it_links_to(tmp_path):
    snapshot = tmp_path / "snapshots" / "abc"
    blobs = tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "0f").write_text("{}")
    (snapshot / "config.json").symlink_to(blobs / "0f")
    assert source_roots([str(snapshot)]) == sorted([str(snapshot), str(blobs)])


def test_roots_of_files_and_of_what_does_not_exist(tmp_path):
    (tmp_path / "m.gguf").touch()
    assert source_roots([str(tmp_path / "m.gguf")]) == [str(tmp_path)]
    assert source_roots([str(tmp_path / "no" / "such")]) == [str(tmp_path)]
    assert output_roots([str(tmp_path / "new" / "out")]) == [str(tmp_path)]


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (999_999, "1.00 MB"), (269_060_552, "269 MB")],
)
def test_sizes(number, shown):
    assert text.size(number) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (59.4, "59 s"), (245, "4 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations(seconds, shown):
    assert text.duration(seconds) == shown
