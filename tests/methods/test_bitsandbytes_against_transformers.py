"""Whole outputs of the engine against what transformers + bitsandbytes save for the same options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bitsandbytes.functional as bnb
import pytest
import torch
from tests import tiny_models
from tests.quantizing import Stored, planned, quantize, real_model, specification, stored_tensors
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

EIGHT_BIT = {"load_in_8bit": True}
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
NF4_DOUBLE = NF4 | {"bnb_4bit_use_double_quant": True}
FP4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}
OPTIONS = {"8bit": EIGHT_BIT, "nf4": NF4, "nf4-double": NF4_DOUBLE, "fp4": FP4}
BLOCK_SIZES = [32, 64, 128, 256, 512, 1024, 2048, 4096]
MEBIBYTE = 1 << 20


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def ours(source: Path, output: Path, options: dict[str, Any], **more: Any) -> Path:
    """Quantizes with the engine, by the names that transformers gives the options."""
    method = "bitsandbytes_8bit" if options.get("load_in_8bit") else "bitsandbytes_4bit"
    config = {
        name: value.upper() if isinstance(value, str) else value
        for name, value in options.items()
        if not name.startswith("load_in_")
    }
    quantize(source, output, method, config, **more)
    return output


def theirs(source: Path, output: Path, options: dict[str, Any]) -> Path:
    model = AutoModelForCausalLM.from_pretrained(
        source, quantization_config=BitsAndBytesConfig(**options)
    )
    model.save_pretrained(output)
    return output


def quantization_config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())["quantization_config"]


def assert_same_tensors(got: Stored, expected: Stored) -> None:
    assert sorted(got) == sorted(expected)
    for name, (dtype, shape, data) in expected.items():
        assert got[name][:2] == (dtype, shape), name
        assert got[name][2] == data, f"{name} differs"


def logits(folder: Path, tokens: list[int]) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].float()


def assert_same_outputs(source: Path, folder: Path, options: dict[str, Any], **more: Any) -> None:
    """Byte for byte what transformers saves, with the same config entry."""
    output = ours(source, folder / "ours", options, **more)
    expected = theirs(source, folder / "theirs", options)
    assert_same_tensors(stored_tensors(output), stored_tensors(expected))
    assert quantization_config(output) == quantization_config(expected)


def assert_same_logits(folder: Path) -> None:
    tokens = [1, 5, 9, 42, 7]
    assert torch.equal(logits(folder / "ours", tokens), logits(folder / "theirs", tokens))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(
    ("family", "tied"), [("llama", True), ("llama", False), ("qwen2", True), ("gpt2", True)]
)
def test_same_bytes_for_each_family(tmp_path, family, tied, options) -> None:
    # 72 is no multiple of 64: blocks cross rows, and the last one of a weight is not full.
    source = tiny_models.write(tmp_path / "source", family, tied=tied, hidden=72)
    assert_same_outputs(source, tmp_path, options)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("dtype", ["F16", "F32"])
def test_same_bytes_for_each_source_dtype(tmp_path, dtype, options) -> None:
    source = tiny_models.write(tmp_path / "source", dtype=dtype, hidden=72)
    assert_same_outputs(source, tmp_path, options)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_same_logits(tmp_path, family, options) -> None:
    # bitsandbytes' 4-bit matmul on a CPU takes only rows of whole blocks.
    source = tiny_models.write(tmp_path / "source", family, hidden=128, intermediate=192)
    assert_same_outputs(source, tmp_path, options)
    assert_same_logits(tmp_path)


@pytest.mark.parametrize("storage", ["uint8", "int8", "float16", "bfloat16", "float32", "float64"])
def test_same_bytes_for_each_storage(tmp_path, storage) -> None:
    source = tiny_models.write(tmp_path / "source")
    assert_same_outputs(source, tmp_path, NF4_DOUBLE | {"bnb_4bit_quant_storage": storage})


@pytest.mark.parametrize("options", [EIGHT_BIT, NF4], ids=["8bit", "nf4"])
def test_same_bytes_with_skipped_modules(tmp_path, options) -> None:
    source = tiny_models.write(tmp_path / "source", tied=False)
    skipped = ["lm_head", "model.layers.0", "v_proj"]
    assert_same_outputs(source, tmp_path, options | {"llm_int8_skip_modules": skipped})


def test_a_given_list_of_skipped_modules_replaces_the_default(tmp_path) -> None:
    source = tiny_models.write(tmp_path / "source", tied=False)
    options = NF4 | {"llm_int8_skip_modules": ["k_proj"]}
    assert_same_outputs(source, tmp_path, options)
    stored = stored_tensors(tmp_path / "ours")
    assert stored["lm_head.weight"][0] == "U8"


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_sharded_source_gives_the_same_bytes(tmp_path, options) -> None:
    whole = tiny_models.write(tmp_path / "whole")
    sharded = tiny_models.write(tmp_path / "sharded", shards=3)
    assert_same_tensors(
        stored_tensors(ours(sharded, tmp_path / "from-shards", options)),
        stored_tensors(ours(whole, tmp_path / "from-one", options)),
    )


@pytest.mark.parametrize("options", [EIGHT_BIT, NF4_DOUBLE], ids=["8bit", "nf4-double"])
def test_a_sharded_output_loads_and_holds_the_same_bytes(tmp_path, options) -> None:
    source = tiny_models.write(tmp_path / "source", hidden=256, intermediate=768)
    whole = ours(source, tmp_path / "one", options)
    sharded = ours(source, tmp_path / "many", options, max_shard_size=MEBIBYTE // 4)
    files = sorted(path.name for path in sharded.glob("*.safetensors"))
    assert len(files) > 2
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    assert sorted(set(index["weight_map"].values())) == files
    assert_same_tensors(stored_tensors(sharded), stored_tensors(whole))
    assert torch.equal(logits(sharded, [3, 1, 4]), logits(whole, [3, 1, 4]))


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("blocksize", BLOCK_SIZES)
def test_every_block_size_against_bitsandbytes(tmp_path, blocksize, quant_type) -> None:
    source = tiny_models.write(tmp_path / "source", hidden=72)
    nested = blocksize in (32, 256, 4096)
    options = NF4 | {
        "bnb_4bit_quant_type": quant_type,
        "bnb_4bit_use_double_quant": nested,
        "blocksize": blocksize,
    }
    output = ours(source, tmp_path / "ours", options)
    stored = stored_tensors(output)
    model = AutoModelForCausalLM.from_pretrained(output)
    for name, (_, shape, data) in stored_tensors(source).items():
        if not name.endswith("_proj.weight"):
            continue
        weight = torch.frombuffer(bytearray(data), dtype=torch.bfloat16).reshape(shape)
        codes, state = bnb.quantize_4bit(
            weight, blocksize=blocksize, quant_type=quant_type, compress_statistics=nested
        )
        assert stored[name][2] == codes.numpy().tobytes(), name
        for key, tensor in state.as_dict(packed=True).items():
            assert stored[f"{name}.{key}"][2] == tensor.numpy().tobytes(), f"{name}.{key}"
        loaded = model.get_parameter(name)
        assert loaded.quant_state.blocksize == blocksize
        expected = bnb.dequantize_4bit(codes, state)
        assert torch.equal(bnb.dequantize_4bit(loaded.data, loaded.quant_state), expected)


def test_a_stored_copy_of_a_tied_head_is_left_out(tmp_path) -> None:
    config = tiny_models.config(tied=True)
    embedding = tiny_models.weights(config)["model.embed_tokens.weight"]
    source = tiny_models.write(tmp_path / "source", changes={"lm_head.weight": embedding})
    report = planned(specification(source, "", "bitsandbytes_4bit"))
    (head,) = [tensor for tensor in report.tensors if tensor.source_name == "lm_head.weight"]
    assert head.action == "DROP"
    assert_same_outputs(source, tmp_path, NF4)


def test_the_whole_folder_is_usable(tmp_path) -> None:
    source = tiny_models.write(tmp_path / "source")
    output = ours(source, tmp_path / "ours", NF4)
    assert AutoTokenizer.from_pretrained(output)("the cat")["input_ids"] == (
        AutoTokenizer.from_pretrained(source)("the cat")["input_ids"]
    )
    assert {path.name for path in output.iterdir()} == {
        "config.json",
        "model.safetensors",
        "quantd.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_real_model(tmp_path, options) -> None:
    source = real_model()
    assert_same_outputs(source, tmp_path, options)
    assert_same_logits(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "ours")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    question = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    tokens = model.generate(**question, max_new_tokens=16, do_sample=False)
    assert "Paris" in tokenizer.decode(tokens[0, question["input_ids"].shape[1] :])


@pytest.mark.slow
def test_real_model_in_shards_of_the_smallest_size(tmp_path) -> None:
    source = real_model()
    whole = ours(source, tmp_path / "one", NF4_DOUBLE)
    sharded = ours(source, tmp_path / "many", NF4_DOUBLE, max_shard_size=MEBIBYTE)
    assert len(list(sharded.glob("*.safetensors"))) > 50
    assert_same_tensors(stored_tensors(sharded), stored_tensors(whole))
    assert torch.equal(logits(sharded, [1, 2, 3]), logits(whole, [1, 2, 3]))
