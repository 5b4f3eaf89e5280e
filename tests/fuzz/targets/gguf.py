"""The reader of GGUF headers, and what inspecting and planning make of them."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from tests.checkpoint import gguf_attacks
from tests.checkpoint.builders import array, gguf_bytes, pair, tensor, text
from tests.fuzz.bounds import check_refusal
from tests.fuzz.gguf_mutation import mutate_gguf
from tests.fuzz.inspecting import check_inspection, check_plan
from tests.fuzz.target import Target, folder

from quantd_server.checkpoint.gguf_header import GgufHeader, read_gguf_header
from quantd_server.errors import CheckpointError
from quantd_server.methods.configs import GgufConfig, MethodConfig

METHOD = MethodConfig(gguf=GgufConfig(file_type="Q4_0"))
"""The only method that takes a .gguf file."""


def run(data: bytes) -> None:
    path = folder() / "fuzzed.gguf"
    path.write_bytes(data)
    try:
        header = read_gguf_header(path)
    except CheckpointError as error:
        check_refusal(error)
    else:
        _check(header, len(data))
        check_inspection(path)
        check_plan(path, METHOD)


def _check(header: GgufHeader, size: int) -> None:
    """Tensors begin aligned, one after the other, and lie in the file."""
    position = header.data_start
    for entry in sorted(header.tensors.values(), key=lambda entry: (entry.offset, entry.nbytes)):
        assert position <= entry.offset < position + header.alignment
        assert (entry.offset - header.data_start) % header.alignment == 0
        position = entry.offset + entry.nbytes
        assert position <= size == header.file_size


def seeds() -> Mapping[str, bytes]:
    number = struct.Struct("<I").pack
    values = [
        pair("general.architecture", "string", text("llama")),
        pair("general.alignment", "uint32", number(32)),
        pair("general.file_type", "uint32", number(15)),
        pair("llama.block_count", "uint32", number(2)),
        pair("llama.attention.head_count", "array", array("uint32", 2, number(4) * 2)),
        pair("tokenizer.ggml.model", "string", text("gpt2")),
        pair("tokenizer.ggml.tokens", "array", array("string", 2, text("a") + text("b"))),
        pair("bool", "bool", b"\1"),
        pair("float64", "float64", struct.pack("<d", 0.5)),
        pair("int64", "int64", struct.pack("<q", -1)),
    ]
    weights = [
        tensor("token_embd.weight", (256, 2), 12),
        tensor("output.weight", (32, 2), 8, 288),
        tensor("blk.0.attn_norm.weight", (8,), 0, 384),
    ]
    return {
        **{name: content for name, (_, content) in gguf_attacks.ATTACKS.items()},
        "nothing": gguf_bytes(),
        "model": gguf_bytes(values, weights, bytes(416)),
        "vocabulary": gguf_bytes(values),
        "float": gguf_bytes(values[:1], [tensor()], bytes(32), version=2),
    }


TARGET = Target(run=run, seeds=seeds, mutate=mutate_gguf)
