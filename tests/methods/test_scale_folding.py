"""Foldings are exact: a model whose scales were folded computes what it did before.

Models of every supported family, built by transformers, are the oracle: each vector of every
folding is random, and the outputs must not change.
"""

from __future__ import annotations

import pytest
from tests.checkpoint.test_layout_against_transformers import tiny_config

from quantd_server.checkpoint.families import BLOCK_WEIGHTS
from quantd_server.checkpoint.layout import TensorRole, model_layout
from quantd_server.methods.scale_folding import FAMILIES, Folding, family_of, foldings

MULTIMODAL = {"gemma3"}
"""Built from parts; its text part is that of gemma3_text."""


def test_every_family_is_known() -> None:
    assert set(FAMILIES) <= set(BLOCK_WEIGHTS)
    assert family_of({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}})
    assert family_of({"model_type": "llava", "text_config": {"model_type": "llama"}}) == "llama"
    assert family_of({"model_type": "gpt2"}) is None
    assert family_of({"model_type": ["llama"]}) is None


@pytest.mark.slow
@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("family", sorted(set(FAMILIES) - MULTIMODAL))
@pytest.mark.filterwarnings("ignore")
def test_a_scaled_model_computes_the_same(tmp_path, family, kv_heads) -> None:
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = tiny_config(family)
    config.num_key_value_heads = kv_heads
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():  # norms start as ones or zeros, biases as zeros
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "before")
    tensors = load_file(tmp_path / "before" / "model.safetensors")
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    layout = model_layout(config.to_dict(), shapes)
    found = list(foldings(config.to_dict(), layout, shapes))
    scale_all(tensors, found)

    (tmp_path / "after").mkdir()
    save_file(tensors, tmp_path / "after" / "model.safetensors", {"format": "pt"})
    config.save_pretrained(tmp_path / "after")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "after", dtype=torch.float32).eval()
    tokens = torch.arange(24).reshape(2, 12) % 60
    with torch.no_grad():
        before, after = model(tokens).logits, again(tokens).logits
    # Float32 rounds; a scale that is missing would change the first digits.
    assert (before - after).abs().max() < 1e-4 * before.abs().max()

    assert_all_is_folded(found, layout, shapes, has_own_values=kv_heads == 4)


def scale_all(tensors, found: list[Folding]) -> None:
    """Divides and multiplies by random scales between 1/2 and 2."""
    import torch

    for folding in found:
        scales = torch.exp2(2 * torch.rand(folding.channels) - 1)
        weight = tensors[f"{folding.previous}.weight"]
        bias = tensors.get(f"{folding.previous}.bias")
        if folding.divided == "ROWS":
            rows = slice(folding.first_row, folding.first_row + folding.channels)
            weight[rows] /= scales[:, None]
            if bias is not None:
                bias[rows] /= scales
        elif folding.divided == "NORM":
            weight /= scales
            if bias is not None:
                bias /= scales
        else:
            weight.copy_((1 + weight) / scales - 1)
        for module in folding.following:
            tensors[f"{module}.weight"] *= scales


def assert_all_is_folded(found, layout, shapes, *, has_own_values: bool) -> None:
    """Every linear layer of a block has its input scaled, but o_proj where values are shared."""
    scaled = [f"{module}.weight" for folding in found for module in folding.following]
    assert len(set(scaled)) == len(scaled)
    roles = (TensorRole.LINEAR, TensorRole.EXPERT, TensorRole.ROUTER)
    expected = {place.name for place in layout.with_role(*roles)}
    if not has_own_values:
        expected -= {name for name in expected if name.endswith("o_proj.weight")}
    assert set(scaled) == expected
    for folding in found:
        for module in folding.following:
            assert shapes[f"{module}.weight"][1] == folding.channels
