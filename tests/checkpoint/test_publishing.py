"""What goes into an output besides tensors: the config, and files carried over."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys

import msgspec
import pytest

from quantd_server.checkpoint.carried_files import carried_files, tokenizer_files
from quantd_server.checkpoint.model_config import published_config
from quantd_server.errors import CheckpointError, Finding, QuantdError, Severity, quoted

CONFIG = {
    "_name_or_path": "/home/someone/model",
    "_commit_hash": "abc",
    "name_or_path": "owner/repo",
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    "text_config": {"_private": 1, "layers": 2, "quantization_config": {"bits": 4}},
    "quantization_config": {"quant_method": "gptq", "dataset": ["secret text"]},
    "auto_map": {
        "AutoConfig": "configuration_x.XConfig",
        "AutoModel": "owner/repo--modeling_x.XModel",
    },
    "teacher": "/data/teacher",
    "windows": "C:\\models",
    "home": "~/models",
    "files": ["/a", "b", {"path": "./c", "keep": None}],
    "eos_token": "</s>",
}


def test_published_config():
    before = copy.deepcopy(CONFIG)
    published = published_config(CONFIG, {"_load_in_8bit": True, "quant_method": "bitsandbytes"})
    assert before == CONFIG
    assert published == {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 576,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "text_config": {"layers": 2},
        "auto_map": {"AutoModel": "owner/repo--modeling_x.XModel"},
        "files": ["b", {"keep": None}],
        "eos_token": "</s>",
        "quantization_config": {"_load_in_8bit": True, "quant_method": "bitsandbytes"},
    }


def test_published_config_without_quantization():
    assert "quantization_config" not in published_config(CONFIG, None)
    assert published_config({"auto_map": {"AutoConfig": "local.X"}}, None) == {}


def test_carried_files():
    wanted = [
        "LICENSE", "LICENSE.txt", "NOTICE", "added_tokens.json", "chat_template.jinja",
        "generation_config.json", "merges.txt", "qwen.tiktoken", "special_tokens_map.json",
        "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json",
    ]  # fmt: skip
    unwanted = [
        "config.json", "model.safetensors", "pytorch_model.bin", "modeling_x.py", "README.md",
        "tokenization_x.py", "license.py", "license.bin", ".gitattributes", "optimizer.pt",
        "tokenizer.json.bak", "sub/tokenizer.json", "quantize_config.json", "training_args.bin",
    ]  # fmt: skip
    assert carried_files(wanted + unwanted) == tuple(sorted(wanted))
    assert tokenizer_files(["LICENSE", "vocab.json"]) == ("vocab.json",)


def test_errors_cross_process_boundaries():
    error = CheckpointError(reason="R", message="m", remedy="r", kind="not_found")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(again) is CheckpointError
    assert again.finding == error.finding
    finding = msgspec.json.decode(msgspec.json.encode(error.finding), type=Finding)
    assert finding == error.finding
    assert finding.severity is Severity.ERROR
    assert QuantdError.from_finding(finding).field == "spec.source_uri"


@pytest.mark.parametrize("value", ["x" * 1000, "\ud800", "a\nb", {"a": "x" * 1000}, None])
def test_quoted_text_is_short_and_printable(value):
    text = quoted(value)
    assert len(text) < 140
    text.encode()
    assert "\n" not in text


def test_the_room_is_light():
    """The server process imports it: nothing of the worker's may come along."""
    script = """
import json, sys
import quantd_server.checkpoint.opening, quantd_server.checkpoint.layout
import quantd_server.checkpoint.model_config, quantd_server.checkpoint.output
import quantd_server.checkpoint.safetensors_layout
print(json.dumps([name for name in ("numpy", "torch", "transformers", "numba", "gguf",
                                    "safetensors") if name in sys.modules]))
"""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
    )
    assert json.loads(ran.stdout) == []
