"""The layout of every known family is that of the model which transformers builds."""

from __future__ import annotations

import pytest

from quantd_server.checkpoint.layout import TensorRole, model_layout

LINEARS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")


def shapes(prefix="model.", blocks=2, *, head=True):
    named = {f"{prefix}embed_tokens.weight": (64, 32), f"{prefix}norm.weight": (32,)}
    for block in range(blocks):
        for linear in LINEARS:
            named[f"{prefix}layers.{block}.{linear}.weight"] = (32, 32)
            named[f"{prefix}layers.{block}.{linear}.bias"] = (32,)
        named[f"{prefix}layers.{block}.input_layernorm.weight"] = (32,)
    if head:
        named["lm_head.weight"] = (64, 32)
    return named


def test_llama():
    layout = model_layout({"model_type": "llama", "num_hidden_layers": 2}, shapes())
    assert layout.recognized
    assert (layout.blocks, layout.declared_blocks) == (2, 2)
    assert layout.block_prefix == "model.layers"
    assert layout.embedding == "model.embed_tokens.weight"
    assert layout.output_head == "lm_head.weight"
    assert not layout.tied_embeddings
    place = layout.places["model.layers.1.mlp.down_proj.weight"]
    assert (place.role, place.block) == (TensorRole.LINEAR, 1)
    assert place.module == "model.layers.1.mlp.down_proj"
    assert len(list(layout.with_role(TensorRole.BIAS))) == 8
    assert len(list(layout.with_role(TensorRole.NORM))) == 3


@pytest.mark.parametrize(
    ("config", "head", "tied"),
    [
        ({"model_type": "llama"}, False, False),
        ({"model_type": "gemma"}, False, True),
        ({"model_type": "gemma"}, True, True),
        ({"model_type": "gemma", "tie_word_embeddings": False}, True, False),
        ({"model_type": "llama", "tie_word_embeddings": True}, False, True),
        ({"model_type": "gemma3", "text_config": {"tie_word_embeddings": False}}, True, False),
        ({"model_type": "unheard_of"}, False, True),
        ({"model_type": "unheard_of"}, True, False),
    ],
)
def test_ties(config, head, tied):
    assert model_layout(config, shapes(head=head)).tied_embeddings is tied


def test_a_base_model_without_its_prefix():
    layout = model_layout({"model_type": "llama"}, shapes(prefix="", head=False))
    assert layout.block_prefix == "layers"
    assert layout.recognized


def test_an_unknown_family_gets_the_generic_rule():
    layout = model_layout({"model_type": "unheard_of"}, shapes())
    assert not layout.recognized
    assert len(list(layout.with_role(TensorRole.LINEAR))) == 8


def test_a_weight_that_the_family_does_not_have():
    extra = "model.layers.0.mlp.extra_proj.weight"
    layout = model_layout({"model_type": "llama"}, shapes() | {extra: (32, 32)})
    assert layout.unexpected == (extra,)
    assert not layout.recognized
    assert layout.places[extra].role is TensorRole.LINEAR


def test_blocks_beyond_the_declared_ones_are_extra_prediction_layers():
    layout = model_layout({"model_type": "llama", "num_hidden_layers": 1}, shapes(blocks=2))
    assert layout.blocks == 1
    place = layout.places["model.layers.1.mlp.down_proj.weight"]
    assert place.role is TensorRole.OTHER
    assert not place.is_linear_module


@pytest.mark.parametrize(
    ("name", "shape", "role"),
    [
        ("mlp.experts.gate_up_proj", (4, 8, 8), TensorRole.FUSED_EXPERTS),
        ("mlp.experts.gate_up_proj_bias", (4, 8), TensorRole.BIAS),
        ("ffn.experts.mlp.w1", (32, 8), TensorRole.FUSED_EXPERTS),
        ("block_sparse_moe.input_linear.weight", (4, 8, 8), TensorRole.FUSED_EXPERTS),
        ("mlp.experts.3.up_proj.weight", (8, 8), TensorRole.EXPERT),
        ("mlp.shared_experts.up_proj.weight", (8, 8), TensorRole.LINEAR),
        ("mlp.gate.weight", (4, 8), TensorRole.ROUTER),
        ("mlp.gate_proj.weight", (8, 8), TensorRole.LINEAR),
        ("linear_attn.conv1d.weight", (8, 1, 4), TensorRole.OTHER),
        ("self_attn.k_norm.weight", (4, 8), TensorRole.NORM),
        ("self_attn.rotary_emb.inv_freq", (4,), TensorRole.OTHER),
    ],
)
def test_roles_in_a_block(name, shape, role):
    name = "model.layers.0." + name
    assert model_layout({"model_type": "unheard_of"}, {name: shape}).places[name].role is role


def test_a_vision_tower_is_not_the_decoder():
    tower = {
        f"vision_tower.vision_model.encoder.layers.{block}.mlp.fc1.weight": (8, 8)
        for block in range(50)
    }
    layout = model_layout(
        {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}},
        tower | shapes(prefix="language_model.model.", head=False),
    )
    assert layout.block_prefix == "language_model.model.layers"
    assert layout.embedding == "language_model.model.embed_tokens.weight"
    assert layout.recognized
    assert {layout.places[name].role for name in tower} == {TensorRole.OTHER}
    assert layout.places[
        "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight"
    ].is_linear_module


def test_published_gpt2_files_hold_masks_and_no_prefix():
    layout = model_layout(
        {"model_type": "gpt2", "n_layer": 1},
        {
            "wte.weight": (64, 32),
            "wpe.weight": (16, 32),
            "h.0.attn.bias": (1, 1, 16, 16),
            "h.0.attn.c_attn.weight": (32, 96),
            "h.0.attn.c_attn.bias": (96,),
            "h.0.ln_1.weight": (32,),
            "ln_f.weight": (32,),
        },
    )
    roles = {name: place.role for name, place in layout.places.items()}
    assert roles == {
        "wte.weight": TensorRole.EMBEDDING,
        "wpe.weight": TensorRole.POSITION_EMBEDDING,
        "h.0.attn.bias": TensorRole.OTHER,
        "h.0.attn.c_attn.weight": TensorRole.LINEAR,
        "h.0.attn.c_attn.bias": TensorRole.BIAS,
        "h.0.ln_1.weight": TensorRole.NORM,
        "ln_f.weight": TensorRole.NORM,
    }
    assert layout.places["h.0.attn.c_attn.weight"].transposed
    assert layout.tied_embeddings


@pytest.mark.parametrize(
    "config", [{}, {"model_type": 7}, {"model_type": "llama", "text_config": 1}]
)
def test_odd_configs_and_names_are_sorted_out_all_the_same(config):
    odd = {
        "": (1,),
        ".": (),
        "a..b": (2, 2),
        "layers.0": (3,),
        "x.layers.999999999.y.weight": (2, 2),
    }
    assert set(model_layout(config, odd).places) == set(odd)
