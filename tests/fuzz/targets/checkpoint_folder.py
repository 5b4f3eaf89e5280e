"""A folder in Hugging Face's form: config.json, the index, headers; inspected and planned.

An input is one JSON object: ``method`` chooses what is planned, ``files`` has what the files hold:
JSON, text, or the header of a safetensors file, which gets as many zeros as it announces.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests import tiny_models
from tests.checkpoint.builders import CONFIG, entry, safetensors_bytes
from tests.fuzz.inspecting import check_inspection, check_plan
from tests.fuzz.json_mutation import mutate_text
from tests.fuzz.target import Target, folder

from quantd_server.checkpoint.dtypes import DTYPE_BITS
from quantd_server.checkpoint.families import BLOCK_WEIGHTS
from quantd_server.methods.configs import (
    AqlmConfig,
    AwqConfig,
    Bitsandbytes4BitConfig,
    Bitsandbytes8BitConfig,
    GgufConfig,
    GptqConfig,
    MethodConfig,
)

METHODS = {
    "gguf": MethodConfig(gguf=GgufConfig(file_type="Q4_K_M")),
    "bitsandbytes_4bit": MethodConfig(bitsandbytes_4bit=Bitsandbytes4BitConfig()),
    "bitsandbytes_8bit": MethodConfig(bitsandbytes_8bit=Bitsandbytes8BitConfig()),
    "gptq": MethodConfig(gptq=GptqConfig()),
    "awq": MethodConfig(awq=AwqConfig()),
    "aqlm": MethodConfig(aqlm=AqlmConfig()),
}
FILE_NAME = re.compile(r"[\w-][\w.-]{0,60}", re.ASCII)
MAX_FILES = 8
MAX_HOLE = 1 << 44
"""Most zeros after a header; they take no place on the disk, which may refuse even so."""


def run(data: bytes) -> None:
    try:
        described = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(described, dict) or not isinstance(described.get("files"), dict):
        return
    path = folder() / "checkpoint"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    for name, content in list(described["files"].items())[:MAX_FILES]:
        if FILE_NAME.fullmatch(name):
            _write(path / name, content)
    check_inspection(path)
    method = described.get("method")
    if isinstance(method, str) and method in METHODS:
        check_plan(path, METHODS[method])


def _write(path: Path, content: Any) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    raw = text.encode("utf-8", "surrogatepass")
    if path.suffix != ".safetensors":
        path.write_bytes(raw)
        return
    path.write_bytes(safetensors_bytes(raw))
    try:
        ends = [value["data_offsets"][1] for value in content.values() if "dtype" in value]
        size = max(end for end in ends if type(end) is int)
    except (AttributeError, LookupError, TypeError, ValueError):
        return
    if 0 <= size <= MAX_HOLE:
        with path.open("rb+") as stream:
            stream.truncate(8 + len(raw) + size)


def seeds() -> Mapping[str, bytes]:
    weights = {"model.layers.0.self_attn.q_proj.weight": entry("BF16", (64, 64), 0, 8192)}
    index = {"metadata": {"total_size": 8}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}
    sharded = {
        "config.json": CONFIG,
        "model.safetensors.index.json": index,
        "model-00001-of-00001.safetensors": {"a": entry()},
    }
    quantized = CONFIG | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    named = {
        "adapter": {"adapter_config.json": {}},
        "config_alone": {"config.json": CONFIG},
        "config_nested": {"config.json": {"model_type": "x", "text_config": CONFIG}},
        "gguf": {"a.gguf": "GGUF"},
        "pickle": {"config.json": CONFIG, "pytorch_model.bin": ""},
        "quantized": {"config.json": quantized, "model.safetensors": weights},
        "shards": sharded,
        "tokenizer": {
            "config.json": CONFIG,
            "model.safetensors": weights,
            "tokenizer.json": '{"pre": "ByteLevel", "model": {"type": "BPE"}}',
            "tokenizer_config.json": {"chat_template": "{{ messages }}"},
        },
    }
    models = {
        f"{family}_{method}": {"method": method, "files": _model(family)}
        for family in ("llama", "qwen2", "gpt2")
        for method in METHODS
    }
    described = {name: {"files": files} for name, files in named.items()} | models
    return {name: json.dumps(value).encode() for name, value in described.items()}


def _model(family: str) -> dict[str, Any]:
    config = tiny_models.config(family, layers=1)
    header, begin = {}, 0
    for name, shape in tiny_models.shapes(config).items():
        end = begin + tensor_bytes(shape)
        header[name] = entry("BF16", shape, begin, end)
        begin = end
    return {"config.json": config, "model.safetensors": header, "tokenizer.json": "{}"}


def tensor_bytes(shape: tuple[int, ...]) -> int:
    """Bytes of a BF16 tensor."""
    nbytes = 2
    for size in shape:
        nbytes *= size
    return nbytes


WORDS = (
    *sorted({name for files in map(json.loads, seeds().values()) for name in files["files"]}),
    *CONFIG, *tiny_models.config(), *tiny_models.config("gpt2"), *METHODS, *DTYPE_BITS,
    *BLOCK_WEIGHTS, "quantization_config", "compression_config", "text_config", "quant_method",
    "rope_scaling", "rope_parameters", "head_dim", "num_experts", "moe_intermediate_size",
    "tie_word_embeddings", "weight_map", "__metadata__", "dtype", "shape", "data_offsets",
    "vision_config", "auto_map", "model-00002-of-00002.safetensors", "../config.json",
)  # fmt: skip


def mutate(
    data: bytes, max_size: int, rng: random.Random, mutate_bytes: Callable[[bytes, int], bytes]
) -> bytes:
    return mutate_text(data, max_size, rng, mutate_bytes, WORDS)


TARGET = Target(run=run, seeds=seeds, mutate=mutate)
