"""Facts about known model families: the names of the weights in a decoder block.

Names are those of published checkpoints, relative to the block, with ``#`` for an expert's number.
The tests build each family with transformers and hold this table against its modules.
"""

from __future__ import annotations


def _below(module: str, names: str) -> frozenset[str]:
    return frozenset(f"{module}.{name}.weight" for name in names.split())


_ATTENTION = _below("self_attn", "q_proj k_proj v_proj o_proj")
_GATED_MLP = _below("mlp", "gate_proj up_proj down_proj")
_LLAMA = _ATTENTION | _GATED_MLP
_FUSED_GATE_MLP = _below("mlp", "gate_up_proj down_proj")
_PLAIN_MLP = _below("mlp", "up_proj down_proj")
_ROUTED = _below("mlp.experts.#", "gate_proj up_proj down_proj") | _below("mlp", "gate")
_SHARED = _below("mlp.shared_experts", "gate_proj up_proj down_proj")
_SHARED_GATED = _below("mlp.shared_expert", "gate_proj up_proj down_proj") | _below(
    "mlp", "shared_expert_gate"
)
_MIXTRAL_EXPERTS = _below("block_sparse_moe.experts.#", "w1 w2 w3") | _below(
    "block_sparse_moe", "gate"
)
_LATENT_ATTENTION = _below(
    "self_attn", "q_proj q_a_proj q_b_proj kv_a_proj_with_mqa kv_b_proj o_proj"
)
_NEOX_MLP = _below("mlp", "dense_h_to_4h dense_4h_to_h")
_BLOOM = _below("self_attention", "query_key_value dense") | _NEOX_MLP
_GPT2 = _below("attn", "c_attn c_proj") | _below("mlp", "c_fc c_proj")

BLOCK_WEIGHTS: dict[str, frozenset[str]] = {
    "apertus": _ATTENTION | _PLAIN_MLP,
    "arcee": _ATTENTION | _PLAIN_MLP,
    "bloom": _BLOOM,
    "codegen": _below("attn", "qkv_proj out_proj") | _below("mlp", "fc_in fc_out"),
    "cohere": _LLAMA,
    "cohere2": _LLAMA,
    "deepseek_v2": _LATENT_ATTENTION | _GATED_MLP | _ROUTED | _SHARED,
    "deepseek_v3": _LATENT_ATTENTION | _GATED_MLP | _ROUTED | _SHARED,
    "ernie4_5": _LLAMA,
    "exaone4": _LLAMA,
    "falcon": _BLOOM,
    "gemma": _LLAMA,
    "gemma2": _LLAMA,
    "gemma3": _LLAMA,
    "gemma3_text": _LLAMA,
    "glm": _ATTENTION | _FUSED_GATE_MLP,
    "glm4": _ATTENTION | _FUSED_GATE_MLP,
    "glm4_moe": _LLAMA | _ROUTED | _SHARED,
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gpt_neo": _below("attn.attention", "q_proj k_proj v_proj out_proj")
    | _below("mlp", "c_fc c_proj"),
    "gpt_neox": _below("attention", "query_key_value dense") | _NEOX_MLP,
    "gpt_oss": _ATTENTION
    | _below("mlp", "router")
    | {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"},
    "gptj": _below("attn", "q_proj k_proj v_proj out_proj") | _below("mlp", "fc_in fc_out"),
    "granite": _LLAMA,
    "granitemoe": _ATTENTION
    | _below("block_sparse_moe", "input_linear output_linear router.layer"),
    "helium": _LLAMA,
    "hunyuan_v1_dense": _LLAMA,
    "llama": _LLAMA,
    "ministral": _LLAMA,
    "ministral3": _LLAMA,
    "mistral": _LLAMA,
    "mixtral": _ATTENTION | _MIXTRAL_EXPERTS,
    "mpt": _below("attn", "Wqkv out_proj") | _below("ffn", "up_proj down_proj"),
    "nemotron": _ATTENTION | _PLAIN_MLP,
    "olmo": _LLAMA,
    "olmo2": _LLAMA,
    "olmo3": _LLAMA,
    "olmoe": _ATTENTION | _ROUTED,
    "opt": _below("self_attn", "q_proj k_proj v_proj out_proj")
    | frozenset({"fc1.weight", "fc2.weight"}),
    "phi": _below("self_attn", "q_proj k_proj v_proj dense") | _below("mlp", "fc1 fc2"),
    "phi3": _below("self_attn", "qkv_proj o_proj") | _FUSED_GATE_MLP,
    "qwen2": _LLAMA,
    "qwen2_moe": _LLAMA | _ROUTED | _SHARED_GATED,
    "qwen3": _LLAMA,
    "qwen3_moe": _LLAMA | _ROUTED,
    "qwen3_next": _LLAMA
    | _ROUTED
    | _SHARED_GATED
    | _below("linear_attn", "in_proj_qkvz in_proj_ba out_proj"),
    "seed_oss": _LLAMA,
    "smollm3": _LLAMA,
    "stablelm": _LLAMA,
    "starcoder2": _ATTENTION | _below("mlp", "c_fc c_proj"),
}
"""Weights of rank 2 and more in a decoder block, apart from norms and convolutions. A family may
use some of them in some blocks only (dense first layers, shared experts)."""

CONV1D_FAMILIES = frozenset({"gpt2", "gpt-sw3", "openai-gpt"})
"""Their block linears are transformers' Conv1D: the weight is stored [in, out]."""

TIED_BY_DEFAULT = frozenset(
    {
        "biogpt", "bloom", "cohere", "cohere2", "cohere2_moe", "ernie4_5", "ernie4_5_moe",
        "falcon", "falcon_mamba", "gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n",
        "gemma3n_text", "gemma4", "gemma4_text", "gpt-sw3", "gpt2", "gpt_bigcode", "gpt_neo",
        "lfm2", "lfm2_moe", "mamba", "minicpm3", "mpt", "openai-gpt", "opt", "recurrent_gemma",
        "smollm3", "starcoder2", "vaultgemma", "xglm", "zamba", "zamba2",
    }
)  # fmt: skip
"""Families whose config ties the output head to the embedding unless it says otherwise
(``tie_word_embeddings`` of the config classes of transformers 5.17)."""
