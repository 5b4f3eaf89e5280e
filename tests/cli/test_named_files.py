"""Files named in a configuration are found: a private server has to be allowed to read them."""

from __future__ import annotations

import os

import pytest

import quantd
from quantd_server.cli.method_options import MethodOptions
from quantd_server.cli.named_files import named_files, with_absolute_paths

HERE = os.path.abspath("i.gguf")


@pytest.mark.parametrize(
    ("options", "files"),
    [
        (MethodOptions(method="gguf"), ()),
        (MethodOptions(method="gguf", imatrix="/i.gguf"), ("/i.gguf",)),
        (MethodOptions(method="gguf", imatrix="i.gguf"), (HERE,)),
        (MethodOptions(method="gguf", set=["pure=true", "imatrix_uri=i.gguf"]), (HERE,)),
        (MethodOptions(method="gguf", set=['imatrix_uri="/with space"']), ("/with space",)),
        (MethodOptions(method="gguf", imatrix="/i", set=["imatrix_uri=/i"]), ("/i",)),
        (MethodOptions(config='{"quant_method":"gguf","imatrix_uri":"file:///i"}'), ("file:///i",)),
        (MethodOptions(config='{"gguf":{"imatrix_uri":"/i"}}'), ("/i",)),
        (MethodOptions(config='{"gguf":{"imatrixUri":"/i"}}'), ("/i",)),
        (MethodOptions(config='{"a":[{"file":{"uri":"/c"}}],"uri":7,"x_uri":""}'), ("/c",)),
        (MethodOptions(config='{"gptq":{"dynamic":{"uri":{"bits":4}}}}'), ()),
    ],
)
def test_files_are_found_wherever_they_are_named(options, files):
    assert named_files(options) == files


def test_a_configuration_in_a_file(tmp_path):
    config = tmp_path / "config.json"
    config.write_text('{"quant_method":"gguf","imatrix_uri":"/data/i.gguf"}')
    assert named_files(MethodOptions(config=str(config))) == ("/data/i.gguf",)


def test_relative_paths_are_those_of_the_caller():
    method = quantd.gguf("Q8_0", imatrix_uri="i.gguf")
    assert with_absolute_paths(method) == quantd.gguf("Q8_0", imatrix_uri=HERE)
    assert method == quantd.gguf("Q8_0", imatrix_uri="i.gguf")
    for other in (quantd.gguf(imatrix_uri="hf:a/b"), quantd.gptq(4), quantd.MethodConfig()):
        assert with_absolute_paths(other) == other
