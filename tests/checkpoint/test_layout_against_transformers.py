"""Tiny models of every known family, built and saved by transformers, are the oracle."""

from __future__ import annotations

import inspect

import pytest

from quantd_server.checkpoint.families import BLOCK_WEIGHTS, TIED_BY_DEFAULT
from quantd_server.checkpoint.huggingface import open_huggingface
from quantd_server.checkpoint.layout import TensorRole, model_layout

pytestmark = pytest.mark.slow

TINY = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 32, "n_embd": 32, "n_layer": 2,
    "n_head": 4, "n_positions": 32, "d_model": 32, "n_heads": 4, "n_layers": 2, "num_layers": 2,
    "num_heads": 4, "ffn_dim": 48, "word_embed_proj_dim": 32, "num_local_experts": 4,
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_routed_experts": 4,
    "shared_expert_intermediate_size": 16, "first_k_dense_replace": 1, "kv_lora_rank": 8,
    "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8, "n_group": 2,
    "topk_group": 1, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
OWN = {
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 8},
    "codegen": {"rotary_dim": 8},
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"]},
}
# Built from parts; the layout of their text part is that of gemma3_text.
MULTIMODAL = {"gemma3"}


def tiny_config(family):
    from transformers import CONFIG_MAPPING

    config_class = CONFIG_MAPPING[family]
    fields = set(inspect.signature(config_class.__init__).parameters) | set(
        config_class.attribute_map
    )
    for base in config_class.__mro__:
        fields |= set(getattr(base, "__annotations__", {}))
    wanted = TINY | OWN.get(family, {})
    return config_class(**{key: value for key, value in wanted.items() if key in fields})


@pytest.mark.parametrize("family", sorted(set(BLOCK_WEIGHTS) - MULTIMODAL))
@pytest.mark.filterwarnings("ignore")
def test_family(tmp_path, family):
    from torch import nn
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(tiny_config(family))
    model.save_pretrained(tmp_path)
    checkpoint = open_huggingface(tmp_path)
    layout = model_layout(
        checkpoint.config, {name: entry.shape for name, entry in checkpoint.tensors.items()}
    )
    assert layout.recognized, layout.unexpected
    assert layout.blocks == layout.declared_blocks == 2

    modules = dict(model.named_modules())
    head = model.get_output_embeddings()
    linear = {
        name
        for name, module in modules.items()
        if isinstance(module, nn.Linear) and module is not head
    }
    conv1d = {name for name, module in modules.items() if type(module).__name__ == "Conv1D"}
    stored = {
        place.module
        for place in layout.places.values()
        if place.is_linear_module and place.role is not TensorRole.OUTPUT_HEAD
    }
    assert stored == linear | conv1d
    assert {place.module for place in layout.places.values() if place.transposed} == conv1d
    assert modules[layout.places[layout.embedding].module] is model.get_input_embeddings()
    norms = {place.module for place in layout.with_role(TensorRole.NORM)}
    assert norms == {
        name
        for name, module in modules.items()
        if "Norm" in type(module).__name__ and getattr(module, "weight", None) is not None
    }
    # Everything is accounted for: a block's weights are linears, experts or routers.
    weights = {place.name for place in layout.places.values() if place.block is not None} - {
        place.name for place in layout.with_role(TensorRole.NORM, TensorRole.BIAS, TensorRole.OTHER)
    }
    assert weights == {
        place.name
        for place in layout.with_role(
            TensorRole.LINEAR, TensorRole.EXPERT, TensorRole.FUSED_EXPERTS, TensorRole.ROUTER
        )
    }


@pytest.mark.parametrize("family", sorted(set(BLOCK_WEIGHTS) | TIED_BY_DEFAULT))
def test_default_tie(family):
    from transformers import CONFIG_MAPPING

    config = CONFIG_MAPPING[family]()
    assert config.tie_word_embeddings is (family in TIED_BY_DEFAULT)
