"""What a checkpoint becomes, and what is said of one that cannot become a GGUF file."""

from __future__ import annotations

import math

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantd_server.errors import Severity
from quantd_server.methods.gguf.architectures import FAMILIES, describe

CONFIG = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
}
BLOCK = {
    "input_layernorm.weight": (32,),
    "post_attention_layernorm.weight": (32,),
    "self_attn.q_proj.weight": (32, 32),
    "self_attn.k_proj.weight": (16, 32),
    "self_attn.v_proj.weight": (16, 32),
    "self_attn.o_proj.weight": (32, 32),
    "mlp.gate_proj.weight": (48, 32),
    "mlp.up_proj.weight": (48, 32),
    "mlp.down_proj.weight": (32, 48),
}


def checkpoint(**changes):
    """Headers of a Llama with two blocks; a change to None leaves a tensor out."""
    shapes = {"model.embed_tokens.weight": (64, 32), "model.norm.weight": (32,)}
    for block in range(2):
        shapes |= {f"model.layers.{block}.{name}": shape for name, shape in BLOCK.items()}
    shapes["lm_head.weight"] = (64, 32)
    shapes |= changes
    return {name: ("BF16", shape) for name, shape in shapes.items() if shape is not None}


def value(description, key):
    return next((e.value for e in description.metadata if e.key == key), None)


def errors(description):
    return [f.reason for f in description.findings if f.severity is Severity.ERROR]


def test_a_llama():
    description = describe(CONFIG, checkpoint())
    assert not description.findings
    assert not description.skipped
    assert description.gguf_arch == "llama"
    assert description.scalar("block_count") == 2
    assert description.scalar("attention.head_count_kv") == 2
    assert value(description, "llama.attention.key_length") == 8
    assert value(description, "llama.rope.dimension_count") == 8
    assert value(description, "llama.rope.freq_base") == 10000.0
    by_name = {t.name: t for t in description.tensors}
    assert [description.tensors[0].name, description.tensors[-1].name] == [
        "token_embd.weight",
        "output.weight",
    ]
    query, key = by_name["blk.1.attn_q.weight"], by_name["blk.1.attn_k.weight"]
    assert query.source == "model.layers.1.self_attn.q_proj.weight"
    assert (query.transform, query.head_count) == ("permute_heads", 4)
    assert (key.transform, key.head_count) == ("permute_heads", 2)
    assert by_name["blk.0.attn_v.weight"].transform == "copy"
    assert by_name["output_norm.weight"].keep_f32
    assert not by_name["output.weight"].keep_f32


def test_keys_are_those_of_the_gguf_package():
    description = describe(CONFIG, checkpoint())
    known = {
        template.format(arch="llama")
        for group in (gguf.Keys.LLM, gguf.Keys.Attention, gguf.Keys.Rope, gguf.Keys.General)
        for template in vars(group).values()
        if isinstance(template, str) and "{dense}" not in template and "{id}" not in template
    }
    assert {entry.key for entry in description.metadata} <= known


def test_a_tied_head_is_skipped_with_a_reason():
    description = describe(CONFIG | {"tie_word_embeddings": True}, checkpoint())
    assert not description.findings
    assert [s.name for s in description.skipped] == ["lm_head.weight"]
    assert "tied" in description.skipped[0].reason
    assert all(t.name != "output.weight" for t in description.tensors)


def test_tables_that_llama_cpp_computes_are_skipped():
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    description = describe(CONFIG, checkpoint(**{name: (4,)}))
    assert not description.findings
    assert [s.name for s in description.skipped] == [name]


def test_the_text_part_of_a_multimodal_gemma():
    text = CONFIG | {"head_dim": 8, "query_pre_attn_scalar": 8, "model_type": "gemma3_text"}
    config = {"model_type": "gemma3", "text_config": text, "vision_config": {}}
    shapes = {"model.language_model.embed_tokens.weight": (64, 32)}
    shapes["model.language_model.norm.weight"] = (32,)
    shapes["model.vision_tower.encoder.weight"] = (9, 9)
    extra = {
        "pre_feedforward_layernorm.weight": (32,),
        "post_feedforward_layernorm.weight": (32,),
        "self_attn.q_norm.weight": (8,),
        "self_attn.k_norm.weight": (8,),
    }
    for block in range(2):
        for name, shape in (BLOCK | extra).items():
            shapes[f"model.language_model.layers.{block}.{name}"] = shape
    description = describe(config, {name: ("BF16", shape) for name, shape in shapes.items()})
    assert not description.findings
    assert [s.name for s in description.skipped] == ["model.vision_tower.encoder.weight"]
    norms = [t for t in description.tensors if t.name.endswith("_norm.weight")]
    assert len(norms) == 2 * 6 + 1
    assert all(t.transform == "add_one" for t in norms)


@pytest.mark.parametrize(
    ("config", "tensors", "reason"),
    [
        ({"model_type": "mamba"}, {}, "GGUF_ARCHITECTURE_UNSUPPORTED"),
        ({"model_type": None}, {}, "GGUF_ARCHITECTURE_UNSUPPORTED"),
        ({"model_type": ["llama"]}, {}, "GGUF_ARCHITECTURE_UNSUPPORTED"),
        ({"hidden_size": "32"}, {}, "CONFIG_FIELD_INVALID"),
        ({"num_attention_heads": 0}, {}, "CONFIG_FIELD_INVALID"),
        ({"rms_norm_eps": float("nan")}, {}, "CONFIG_FIELD_INVALID"),
        ({"num_hidden_layers": 10**6}, {}, "GGUF_FEATURE_UNSUPPORTED"),
        ({"hidden_act": "gelu"}, {}, "GGUF_FEATURE_UNSUPPORTED"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, {}, "GGUF_FEATURE_UNSUPPORTED"),
        ({"rope_parameters": {"rope_type": "llama9"}}, {}, "GGUF_FEATURE_UNSUPPORTED"),
        ({"partial_rotary_factor": 0.5}, {}, "GGUF_FEATURE_UNSUPPORTED"),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "mscale": 0.7}},
            {},
            "GGUF_FEATURE_UNSUPPORTED",
        ),
        ({}, {"model.norm.weight": None}, "GGUF_TENSOR_MISSING"),
        ({}, {"lm_head.weight": None}, "GGUF_TENSOR_MISSING"),
        ({}, {"model.norm.weight": (31,)}, "GGUF_TENSOR_SHAPE_MISMATCH"),
        ({}, {"model.norm.bias": (32,)}, "GGUF_TENSOR_UNMAPPED"),
        ({}, {"model.layers.2.input_layernorm.weight": (32,)}, "GGUF_TENSOR_UNMAPPED"),
        ({}, {"model.layers.0.self_attn.q_norm.weight": (8,)}, "GGUF_TENSOR_UNMAPPED"),
        ({}, {"what.is.this": (1,)}, "GGUF_TENSOR_UNMAPPED"),
        (
            {"model_type": "qwen2"},
            {"model.layers.0.self_attn.o_proj.bias": (32,)},
            "GGUF_TENSOR_UNMAPPED",
        ),
        ({"model_type": "qwen2", "head_dim": 16}, {}, "GGUF_FEATURE_UNSUPPORTED"),
        ({"model_type": "gemma2", "query_pre_attn_scalar": 99}, {}, "GGUF_FEATURE_UNSUPPORTED"),
    ],
)
def test_what_cannot_be_converted_is_an_error(config, tensors, reason):
    description = describe(CONFIG | config, checkpoint(**tensors))
    assert reason in errors(description)
    for finding in description.findings:
        assert finding.message
        assert finding.remedy


def test_quantized_sources_are_refused():
    tensors = checkpoint() | {"model.layers.0.mlp.up_proj.weight": ("F8_E4M3", (48, 32))}
    assert "GGUF_SOURCE_DTYPE_UNSUPPORTED" in errors(describe(CONFIG, tensors))


def test_a_sliding_window_that_llama_cpp_ignores_is_a_warning():
    description = describe(CONFIG | {"model_type": "mistral", "sliding_window": 64}, checkpoint())
    assert [f.reason for f in description.findings] == ["GGUF_SLIDING_WINDOW_IGNORED"]
    assert description.findings[0].severity is Severity.WARNING


def test_names_of_local_folders_are_not_published():
    description = describe(CONFIG | {"_name_or_path": "/home/me/secret/My-Model/"}, checkpoint())
    assert value(description, "general.name") == "My-Model"


def test_llama3_factors_are_those_of_transformers():
    rope = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    config = CONFIG | {"rope_parameters": rope, "head_dim": 128}
    description = describe(config, checkpoint())
    factors = next(t for t in description.tensors if t.name == "rope_freqs.weight").values
    assert len(factors) == 64
    assert (factors[0], factors[-1]) == (1.0, 8.0)
    # One frequency between the bands, by the formula of _compute_llama3_parameters.
    inverse = 1 / 500000.0 ** (2 * 32 / 128)
    wavelength = 2 * math.pi / inverse
    smooth = (8192 / wavelength - 1.0) / (4.0 - 1.0)
    scaled = (1 - smooth) * inverse / 8.0 + smooth * inverse
    assert math.isclose(inverse / factors[32], scaled, rel_tol=1e-12)


odd = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.lists(st.integers(), max_size=3)
    | st.dictionaries(
        st.sampled_from(["rope_type", "rope_theta", "factor", "full_attention", "long_factor"]),
        st.none() | st.floats() | st.sampled_from(["yarn", "longrope", "llama3", "linear"]),
        max_size=3,
    )
)
KEYS = [*CONFIG, "rope_parameters", "rope_scaling", "head_dim", "sliding_window", "layer_types"]
KEYS += ["tie_word_embeddings", "text_config", "query_pre_attn_scalar", "hidden_act"]
KEYS += ["final_logit_softcapping", "attn_logit_softcapping", "partial_rotary_factor"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(FAMILIES)),
    st.dictionaries(st.sampled_from(KEYS), odd, max_size=5),
    st.lists(st.sampled_from(sorted(checkpoint())), max_size=3),
)
def test_odd_configs_never_raise_and_lose_no_tensor(model_type, changes, removed):
    tensors = {n: t for n, t in checkpoint().items() if n not in removed}
    description = describe(CONFIG | changes | {"model_type": model_type}, tensors)
    placed = {t.source for t in description.tensors} | {s.name for s in description.skipped}
    if set(tensors) - placed:
        assert errors(description)
