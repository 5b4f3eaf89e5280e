"""A blockwise model against the whole one, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.calibration.families import COMMON, EXPERTS, make, sequences
from tests.calibration.opened import opened
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from quantd_server.calibration.model import BlockwiseModel
from quantd_server.errors import QuantdError


@torch.inference_mode()
def logits(model: BlockwiseModel, tokens: torch.Tensor) -> torch.Tensor:
    states = model.embed(tokens)
    for index in range(len(model)):
        model.load_block(index, linear_dtype=torch.float32)
        states = model.run_block(index, states)
        model.free_block(index)
    return model.logits(states, 0, model.parameters.read(model.head_name()).float())


def check(whole: PreTrainedModel, folder: Path) -> None:
    tokens = torch.stack(sequences(2))
    with opened(folder) as model:
        found = logits(model, tokens)
        assert all(value.is_meta for block in model.blocks for value in block.parameters())
    expected = whole(tokens, use_cache=False).logits
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_parameters_are_read_in_the_dtype_they_are_stored_in(tied, dtype, tmp_path):
    whole = make("llama", tmp_path / "made", tie_word_embeddings=tied)
    whole.to(dtype).save_pretrained(tmp_path / "stored")
    # Not `whole` itself, whose position frequencies are rounded by now.
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "stored", dtype=torch.float32)
    check(again, tmp_path / "stored")


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_a_checkpoint_of_the_base_model_alone_lacks_the_prefix(family, tmp_path):
    whole = make(family, tmp_path / "model", tie_word_embeddings=True)
    file = tmp_path / "model" / "model.safetensors"
    prefix = f"{whole.base_model_prefix}."
    tensors = {name.removeprefix(prefix): value for name, value in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    check(whole, tmp_path / "model")


def test_a_head_that_checkpoints_call_otherwise(tmp_path):
    make("gpt_neox", tmp_path / "model", tie_word_embeddings=False)
    assert "embed_out.weight" in load_file(tmp_path / "model" / "model.safetensors")
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    check(whole, tmp_path / "model")


def test_a_head_that_is_missing_and_not_tied(tmp_path):
    make("llama", tmp_path / "model", tie_word_embeddings=False)
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    del tensors["lm_head.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    error = refused(tmp_path / "model")
    assert error.reason == "ARCHITECTURE_NOT_SUPPORTED"
    assert "lm_head.weight" in error.message


@pytest.mark.parametrize("family", ["apertus", "gemma4_text"])
def test_buffers_of_the_checkpoint_are_read(family, tmp_path):
    whole = make(family, tmp_path / "model")
    parameters = dict(whole.named_parameters())
    buffers = {name: value for name, value in whole.state_dict().items() if name not in parameters}
    stored = {name for name in buffers if name != "lm_head.weight"}
    assert stored
    with torch.no_grad():
        for name in stored:
            buffers[name].mul_(1.5)
    whole.save_pretrained(tmp_path / "changed")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "changed", dtype=torch.float32)
    check(again, tmp_path / "changed")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "nonsense"),
        ("num_attention_heads", "4"),
        ("rope_parameters", {"rope_type": "nonsense", "rope_theta": 1e4}),
        ("rope_scaling", [1]),
    ],
)
def test_configurations_that_transformers_cannot_use(key, value, tmp_path):
    make("llama", tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {key: value}))
    assert refused(tmp_path / "model").reason == "ARCHITECTURE_NOT_SUPPORTED"


def test_scaled_rotary_embeddings_are_computed_as_configured(tmp_path):
    rope = {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0}
    check(make("llama", tmp_path / "model", rope_parameters=rope), tmp_path / "model")


def test_the_logits_of_a_slice_are_a_slice_of_the_logits(tmp_path):
    make("phi", tmp_path / "model")
    with opened(tmp_path / "model") as model:
        states = model.embed(torch.stack(sequences(2)))
        head = model.parameters.read(model.head_name())
        whole = model.logits(states, 0, head)
        parts = [model.logits(states, begin, head[begin : begin + 50]) for begin in (0, 50, 100)]
    torch.testing.assert_close(torch.cat(parts, -1), whole)


def refused(folder: Path) -> QuantdError:
    with pytest.raises(QuantdError) as raised, opened(folder):
        pass
    assert str(folder) not in raised.value.message
    assert raised.value.remedy
    return raised.value


def test_an_unknown_architecture_is_refused(tmp_path):
    make("llama", tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "mystery"}))
    error = refused(tmp_path / "model")
    assert error.reason == "ARCHITECTURE_NOT_SUPPORTED"
    assert "'mystery'" in error.message


def test_an_architecture_without_language_model_is_refused(tmp_path):
    make("llama", tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps({"model_type": "clip"}))
    assert refused(tmp_path / "model").reason == "ARCHITECTURE_NOT_SUPPORTED"


@pytest.mark.parametrize("change", ["missing", "shape"])
def test_parameters_must_be_those_of_the_architecture(change, tmp_path):
    make("llama", tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    name = "model.layers.1.mlp.up_proj.weight"
    tensors = load_file(file)
    value = tensors.pop(name)
    if change == "shape":
        tensors[name] = value[:-1].contiguous()
    save_file(tensors, file, metadata={"format": "pt"})
    error = refused(tmp_path / "model")
    assert error.reason == "ARCHITECTURE_NOT_SUPPORTED"
    assert name in error.message


def test_fused_experts_of_other_families_are_refused(tmp_path):
    config = CONFIG_MAPPING["olmoe"](**(COMMON | EXPERTS))
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    error = refused(tmp_path / "model")
    assert error.reason == "ARCHITECTURE_NOT_SUPPORTED"
    assert "experts" in error.message


def test_a_token_beyond_the_vocabulary_is_a_domain_error(tmp_path):
    make("llama", tmp_path / "model")
    with opened(tmp_path / "model") as model, pytest.raises(QuantdError) as raised:
        model.embed(torch.tensor([[1, 2, 128]]))
    assert raised.value.reason == "TOKEN_BEYOND_VOCABULARY"
