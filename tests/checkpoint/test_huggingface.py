"""Opening Hugging Face folders: what is accepted, and the reason for everything that is not."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.checkpoint.builders import CONFIG, write_safetensors, write_sharded

from quantd_server.checkpoint import huggingface
from quantd_server.checkpoint.huggingface import open_huggingface
from quantd_server.checkpoint.layout import model_layout
from quantd_server.checkpoint.model_config import published_config
from quantd_server.checkpoint.opening import open_checkpoint
from quantd_server.errors import CheckpointError

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


def single(directory, config=CONFIG):
    directory.mkdir(exist_ok=True)
    raw = config if isinstance(config, bytes) else json.dumps(config).encode()
    (directory / "config.json").write_bytes(raw)
    write_safetensors(directory / "model.safetensors", ["a", "b"])
    return directory


def refused(path, reason):
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert caught.value.reason == reason
    assert str(path) not in caught.value.message + caught.value.remedy
    assert caught.value.remedy
    return caught.value


def test_single_file(tmp_path):
    single(tmp_path)
    for name in ("tokenizer.json", "LICENSE", "modeling_evil.py", "optimizer.pt"):
        (tmp_path / name).write_text("{}")
    checkpoint = open_checkpoint(tmp_path)
    assert list(checkpoint.tensors) == ["a", "b"]
    assert checkpoint.files == ("model.safetensors",)
    assert checkpoint.total_bytes == (tmp_path / "model.safetensors").stat().st_size
    assert checkpoint.model_type == "llama"
    assert checkpoint.carried_files == ("LICENSE", "tokenizer.json")
    assert checkpoint.quantization_config is None


def test_shards(tmp_path):
    write_sharded(tmp_path, {ONE: ["a", "b"], TWO: ["c"]})
    checkpoint = open_huggingface(tmp_path)
    assert checkpoint.files == (ONE, TWO)
    assert {name: entry.file for name, entry in checkpoint.tensors.items()} == {
        "a": ONE,
        "b": ONE,
        "c": TWO,
    }


def test_a_single_file_goes_before_an_index(tmp_path):
    write_sharded(tmp_path, {ONE: ["x"]})
    single(tmp_path)
    assert open_huggingface(tmp_path).files == ("model.safetensors",)


@pytest.mark.parametrize(
    "where",
    [
        {"quantization_config": {"quant_method": "gptq"}},
        {"text_config": {"quantization_config": {"quant_method": "gptq"}}},
        {"compression_config": {"quant_method": "gptq"}},
    ],
)
def test_an_already_quantized_checkpoint_says_so(tmp_path, where):
    checkpoint = open_huggingface(single(tmp_path, CONFIG | where))
    assert checkpoint.quantization_config == {"quant_method": "gptq"}


@pytest.mark.parametrize(
    ("reason", "config"),
    [
        ("JSON_INVALID", b""),
        ("JSON_INVALID", b"{"),
        ("JSON_INVALID", b"\xff"),
        ("JSON_INVALID", b'{"model_type": NaN}'),
        ("JSON_INVALID", b'{"model_type": "\\ud800"}'),
        ("JSON_INVALID", b'{"a":' + b"[" * 100_000),
        ("JSON_INVALID", b'{"a":' + b"[" * 100 + b"]" * 100 + b"}"),
        ("JSON_INVALID", b'{"a":' + b"9" * 5000 + b"}"),
        ("JSON_NOT_AN_OBJECT", b"[]"),
        ("FILE_TOO_LARGE", b" " * (huggingface.MAX_CONFIG_BYTES + 1)),
        ("MODEL_TYPE_MISSING", {}),
        ("MODEL_TYPE_MISSING", {"model_type": 1}),
        ("CONFIG_INVALID", CONFIG | {"quantization_config": "gptq"}),
        ("CONFIG_INVALID", CONFIG | {"text_config": []}),
    ],
)
def test_config_attacks(tmp_path, reason, config):
    refused(single(tmp_path, config), reason)


def test_missing_config(tmp_path):
    single(tmp_path)
    (tmp_path / "config.json").unlink()
    assert refused(tmp_path, "CONFIG_MISSING").kind == "not_found"


def test_a_folder_with_one_gguf_file_is_not_taken_for_that_file(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert ".gguf file itself" in refused(tmp_path, "GGUF_IN_FOLDER").remedy


def test_adapter(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    refused(tmp_path, "ADAPTER_ONLY")


@pytest.mark.parametrize(
    ("reason", "weight_map"),
    [
        ("INDEX_INVALID", {}),
        ("INDEX_INVALID", []),
        ("INDEX_INVALID", {"a": 1}),
        ("INDEX_INVALID", {"a": ""}),
        ("INDEX_INVALID", {"a": "config.json"}),
        ("INDEX_INVALID", {"a": "sub/x.safetensors"}),
        ("PATH_ESCAPES_CHECKPOINT", {"a": "../secret.safetensors"}),
        ("PATH_ESCAPES_CHECKPOINT", {"a": "sub/../../secret.safetensors"}),
        ("PATH_ESCAPES_CHECKPOINT", {"a": "/etc/passwd.safetensors"}),
        ("PATH_ESCAPES_CHECKPOINT", {"a": "x\0.safetensors"}),
        ("PATH_ESCAPES_CHECKPOINT", {"a": "link.safetensors"}),
        ("SHARD_MISSING", {"a": "absent.safetensors"}),
        ("SHARD_MISSING", {"a": "x" * 300 + ".safetensors"}),
        ("TENSOR_MISSING", {"a": ONE, "b": ONE, "elsewhere": ONE}),
        ("TENSOR_MISSING", {"a": TWO, "c": ONE}),
    ],
)
def test_index_attacks(tmp_path, reason, weight_map):
    write_safetensors(tmp_path / "secret.safetensors", ["a"])
    model = tmp_path / "model"
    write_sharded(model, {ONE: ["a", "b"], TWO: ["c"]}, weight_map)
    (model / "link.safetensors").symlink_to("../secret.safetensors")
    refused(model, reason)


KEYS = (
    "model_type", "text_config", "num_hidden_layers", "tie_word_embeddings", "quantization_config",
    "auto_map", "compression_config", "weight_map", "metadata", "_name_or_path", "a", "b", "c",
)  # fmt: skip
keys = st.sampled_from(KEYS) | st.text(max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(config=json_values, more=st.dictionaries(keys, json_values), index=json_values)
def test_odd_json_raises_nothing_else(tmp_path_factory, config, more, index):
    path = tmp_path_factory.getbasetemp() / "odd"
    write_sharded(path, {ONE: ["a", "b"]})
    (path / "config.json").write_text(json.dumps(config))
    with contextlib.suppress(CheckpointError):
        open_huggingface(path)
    (path / "config.json").write_text(json.dumps(CONFIG | more))
    with contextlib.suppress(CheckpointError):
        checkpoint = open_huggingface(path)
        shapes = {name: entry.shape for name, entry in checkpoint.tensors.items()}
        assert set(model_layout(checkpoint.config, shapes).places) == {"a", "b"}
        published = json.dumps(published_config(checkpoint.config, None))
        assert "quantization_config" not in published
    (path / INDEX).write_text(json.dumps(index))
    with contextlib.suppress(CheckpointError):
        open_huggingface(path)


def test_tensor_in_two_shards(tmp_path):
    write_sharded(tmp_path, {ONE: ["a", "b"], TWO: ["b"]})
    refused(tmp_path, "TENSOR_IN_TWO_FILES")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}"])
def test_broken_index(tmp_path, content):
    write_sharded(tmp_path, {ONE: ["a"]})
    (tmp_path / INDEX).write_bytes(content)
    with pytest.raises(CheckpointError):
        open_huggingface(tmp_path)


def test_shards_without_index(tmp_path):
    write_sharded(tmp_path, {ONE: ["a"]})
    (tmp_path / INDEX).unlink()
    refused(tmp_path, "INDEX_MISSING")


@pytest.mark.parametrize(
    ("reason", "file"),
    [
        ("PICKLE_ONLY", "pytorch_model.bin"),
        ("PICKLE_ONLY", "consolidated.00.pth"),
        ("GGUF_IN_FOLDER", "model.gguf"),
        ("ADAPTER_ONLY", "adapter_model.safetensors"),
        ("NO_WEIGHTS", "README.md"),
    ],
)
def test_folders_without_safetensors(tmp_path, reason, file):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / file).write_bytes(b"x")
    refused(tmp_path, reason)


def test_no_tensors(tmp_path):
    single(tmp_path)
    write_safetensors(tmp_path / "model.safetensors", [])
    refused(tmp_path, "NO_WEIGHTS")


def test_a_carried_file_that_leads_out_of_the_folder(tmp_path):
    (tmp_path / "secret").write_text("x")
    model = single(tmp_path / "model")
    (model / "tokenizer.json").symlink_to("../secret")
    refused(model, "PATH_ESCAPES_CHECKPOINT")


def test_other_sources(tmp_path):
    assert refused(tmp_path / "absent", "SOURCE_NOT_FOUND").kind == "not_found"
    refused(tmp_path / "absent.gguf", "SOURCE_NOT_FOUND")
    refused(tmp_path / ("x" * 300), "SOURCE_NOT_FOUND")
    refused(tmp_path / "a\0b", "SOURCE_NOT_FOUND")
    (tmp_path / "notes.txt").write_text("x")
    refused(tmp_path / "notes.txt", "SOURCE_KIND_UNKNOWN")
    write_safetensors(tmp_path / "model.safetensors", ["a"])
    refused(tmp_path / "model.safetensors", "SOURCE_KIND_UNKNOWN")
    with pytest.raises(CheckpointError, match="folder"):
        open_huggingface(tmp_path / "notes.txt")
