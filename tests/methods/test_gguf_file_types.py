"""Tensor types equal those that llama.cpp's own quantizer chooses, file type by file type."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.methods import gguf_files

from quantd_server.checkpoint.gguf_header import read_gguf_header
from quantd_server.checkpoint.gguf_types import GGML_TYPES
from quantd_server.errors import Severity
from quantd_server.methods.gguf.description import float32, uint32
from quantd_server.methods.gguf.file_types import (
    ALIASES,
    FILE_TYPES,
    ModelFacts,
    Override,
    TensorToType,
    choose_types,
)
from quantd_server.methods.gguf.metadata_writer import TypedTensor
from quantd_server.methods.gguf.mixtures import use_more_bits

ROWS = 2
FUSED = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")
SEPARATE = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
BLOCK_TENSORS = {"phi3": FUSED, "falcon": FUSED}


def model(arch, blocks, row, down_row, *, tied, experts=0):
    """Tensors of a model of ``arch`` whose matrices have two rows: types depend on names, the
    order of blocks and row lengths only.
    """
    shapes = {"token_embd.weight": (ROWS, row), "output_norm.weight": (row,)}
    for block in range(blocks):
        shapes[f"blk.{block}.attn_norm.weight"] = (row,)
        for name in BLOCK_TENSORS.get(arch, SEPARATE):
            length = down_row if name == "ffn_down" else row
            if experts and name.startswith("ffn"):
                shapes[f"blk.{block}.{name}_exps.weight"] = (experts, ROWS, length)
            else:
                shapes[f"blk.{block}.{name}.weight"] = (ROWS, length)
        if experts:
            shapes[f"blk.{block}.ffn_gate_inp.weight"] = (experts, row)
    if not tied:
        shapes["output.weight"] = (ROWS, row)
    kept = ("_norm.weight", "gate_inp.weight")
    return [
        TensorToType(name=n, shape=s, source_type="F32" if n.endswith(kept) else "F16")
        for n, s in shapes.items()
    ]


def metadata(facts, row):
    arch = facts.gguf_arch
    return [
        uint32(f"{arch}.block_count", facts.blocks),
        uint32(f"{arch}.context_length", 64),
        uint32(f"{arch}.embedding_length", row),
        uint32(f"{arch}.feed_forward_length", row),
        uint32(f"{arch}.attention.head_count", facts.heads),
        uint32(f"{arch}.attention.head_count_kv", facts.kv_heads),
        uint32(f"{arch}.expert_count", facts.experts),
        uint32(f"{arch}.expert_used_count", min(2, facts.experts)),
        float32(f"{arch}.attention.layer_norm_rms_epsilon", 1e-5),
        float32(f"{arch}.attention.layer_norm_epsilon", 1e-5),
        uint32(f"{arch}.vocab_size", ROWS),
    ]


def types_of_llama_cpp(tmp_path, tensors, facts, row, file_type, **options):
    """Writes the model, lets llama.cpp quantize it and reads the types back."""
    source, destination = tmp_path / "source.gguf", tmp_path / "quantized.gguf"
    rng = np.random.default_rng(1)
    gguf_files.write(
        source,
        facts.gguf_arch,
        metadata(facts, row),
        [
            (
                TypedTensor(name=t.name, shape=t.shape, ggml_type=t.source_type),
                rng.normal(0, 0.02, t.shape).astype(np.float32),
            )
            for t in tensors
        ],
        FILE_TYPES["F16"].id,
    )
    if options.pop("has_imatrix", False):
        options["imatrix"] = {
            t.name: np.ones(t.shape[-1] * (t.shape[0] if len(t.shape) == 3 else 1), np.float32)
            for t in tensors
        }
    for name in ("output_type", "token_embedding_type"):
        if options.get(name):
            options[name] = GGML_TYPES[options[name]].id
    options["overrides"] = [
        (o.pattern, GGML_TYPES[o.type].id) for o in options.get("overrides", ())
    ]
    gguf_files.llama().quantize(source, destination, FILE_TYPES[file_type].id, **options)
    header = read_gguf_header(destination)
    return {name: entry.ggml_type for name, entry in header.tensors.items()}


def ours(tensors, facts, file_type, **options):
    selection = choose_types(tensors, facts, file_type, **options)
    return selection, {choice.name: choice.ggml_type for choice in selection.choices}


def compare(tmp_path, arch, blocks, heads, kv_heads, row, down_row, file_type, **options):
    tied, experts = options.pop("tied", False), options.pop("experts", 0)
    tensors = model(arch, blocks, row, down_row, tied=tied, experts=experts)
    facts = ModelFacts(
        gguf_arch=arch, blocks=blocks, heads=heads, kv_heads=kv_heads, experts=experts
    )
    selection, types = ours(tensors, facts, file_type, **options)
    if any(f.reason == "GGUF_IMATRIX_REQUIRED" for f in selection.findings):
        with pytest.raises(RuntimeError, match="imatrix"):
            types_of_llama_cpp(tmp_path, tensors, facts, row, file_type, **options)
        return
    assert types == types_of_llama_cpp(tmp_path, tensors, facts, row, file_type, **options)


@pytest.mark.parametrize("file_type", FILE_TYPES)
@pytest.mark.parametrize(
    ("arch", "blocks", "heads", "kv_heads", "row", "down_row"),
    [
        ("llama", 16, 8, 2, 256, 512),
        ("llama", 30, 9, 3, 576, 1536),
        ("qwen2", 24, 8, 8, 256, 256),
        ("gemma3", 18, 4, 1, 640, 2048),
        ("phi3", 32, 8, 8, 256, 256),
    ],
)
def test_every_file_type(tmp_path, arch, blocks, heads, kv_heads, row, down_row, file_type):
    tied = arch in ("gemma3", "llama")
    compare(tmp_path, arch, blocks, heads, kv_heads, row, down_row, file_type, tied=tied)


@pytest.mark.parametrize("file_type", FILE_TYPES)
@pytest.mark.parametrize("has_imatrix", [False, True])
def test_mixtral_has_rules_of_its_own(tmp_path, file_type, has_imatrix):
    compare(tmp_path, "llama", 16, 8, 2, 256, 256, file_type, experts=8, has_imatrix=has_imatrix)


@pytest.mark.parametrize("file_type", ["Q3_K_S", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q2_K"])
@pytest.mark.parametrize(("arch", "kv_heads"), [("llama", 8), ("llama", 64), ("qwen2", 64)])
def test_seventy_billion(tmp_path, file_type, arch, kv_heads):
    compare(tmp_path, arch, 80, 64, kv_heads, 256, 256, file_type)


@pytest.mark.parametrize("file_type", FILE_TYPES)
def test_falcon_has_rules_of_its_own(tmp_path, file_type):
    compare(tmp_path, "falcon", 32, 8, 8, 256, 256, file_type)


@pytest.mark.parametrize("file_type", ["Q3_K_M", "Q4_K_M", "Q4_K_S", "Q5_K_M", "IQ3_M"])
@pytest.mark.parametrize("value", ["attn_v", "attn_kv_b", "attn_qkv"])
def test_blocks_without_attention(tmp_path, file_type, value):
    """Hybrid models: attention values are counted among themselves, not by block."""
    facts = ModelFacts(gguf_arch="llama", blocks=24, heads=8, kv_heads=8)
    tensors = [
        TensorToType(
            name=tensor.name.replace("attn_v", value), shape=tensor.shape, source_type="F16"
        )
        for tensor in model("llama", 24, 256, 256, tied=False)
        if "norm" not in tensor.name
    ]
    tensors = [t for t in tensors if value not in t.name or int(t.name.split(".")[1]) % 3 == 1]
    _, types = ours(tensors, facts, file_type)
    assert types == types_of_llama_cpp(tmp_path, tensors, facts, 256, file_type)


quantized_types = st.sampled_from(["Q4_K", "Q6_K", "Q8_0", "Q4_0", "F16", "IQ4_XS", "Q3_K"])


@pytest.mark.slow
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_random_models_and_options(tmp_path, data):
    arch = data.draw(st.sampled_from(["llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3"]))
    kv_heads = data.draw(st.integers(1, 4))
    row, down_row = (data.draw(st.sampled_from([256, 512, 288, 576])) for _ in range(2))
    options = {
        "tied": data.draw(st.booleans()),
        "experts": data.draw(st.sampled_from([0, 0, 4, 8])) if arch == "llama" else 0,
        "has_imatrix": data.draw(st.booleans()),
        "pure": data.draw(st.booleans()),
        "output_type": data.draw(st.none() | st.sampled_from(["Q8_0", "F16", "Q5_0"])),
        "token_embedding_type": data.draw(st.none() | st.sampled_from(["Q8_0", "F16", "Q5_0"])),
        "overrides": data.draw(
            st.lists(
                st.builds(
                    Override,
                    pattern=st.sampled_from(
                        ["attn_v", r"blk\.[0-3]\.", "ffn_(up|gate)", "token_embd", "output", "x9"]
                    ),
                    type=quantized_types,
                ),
                max_size=3,
            )
        ),
    }
    blocks = data.draw(st.integers(1, 34))
    heads = kv_heads * data.draw(st.sampled_from([1, 2, 4, 8]))
    file_type = data.draw(st.sampled_from(list(FILE_TYPES)))
    compare(tmp_path, arch, blocks, heads, kv_heads, row, down_row, file_type, **options)


def test_the_order_in_the_file_does_not_matter():
    tensors = model("llama", 16, 256, 256, tied=False)
    facts = ModelFacts(gguf_arch="llama", blocks=16, heads=8, kv_heads=8)
    _, in_order = ours(tensors, facts, "Q4_K_M")
    selection, backwards = ours(tensors[::-1], facts, "Q4_K_M")
    assert in_order == backwards
    assert [c.name for c in selection.choices] == [t.name for t in tensors[::-1]]


@pytest.mark.parametrize(
    ("layers", "more"),
    [
        (16, {0, 1, 4, 7, 10, 13, 14, 15}),
        (22, {0, 1, 4, 7, 10, 13, 16, 19, 20, 21}),
        (32, {0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31}),
    ],
)
def test_use_more_bits_of_known_models(layers, more):
    assert {layer for layer in range(layers) if use_more_bits(layer, layers)} == more


@given(st.integers(1, 512))
def test_use_more_bits_takes_both_ends_and_a_third_between(layers):
    chosen = [use_more_bits(layer, layers) for layer in range(layers)]
    eighth, last = layers // 8, 7 * layers // 8
    assert all(chosen[:eighth])
    assert all(chosen[last:])
    assert abs(sum(chosen[eighth:last]) - (last - eighth) / 3) < 1


def test_reasons_are_for_people():
    tensors = model("llama", 16, 576, 1536, tied=True)
    facts = ModelFacts(gguf_arch="llama", blocks=16, heads=9, kv_heads=3)
    selection = choose_types(
        tensors, facts, "Q4_K_M", overrides=[Override(pattern="attn_k", type="Q8_0")]
    )
    reasons = {choice.name: choice.reason for choice in selection.choices}
    assert reasons["blk.0.attn_norm.weight"] == "kept F32: one-dimensional"
    embedding = reasons["token_embd.weight"]
    assert embedding == "tied output layer: rows of 576 do not fit Q4_K"
    assert reasons["blk.0.ffn_down.weight"] == "ffn_down of layer 0: Q6_K by the Q4_K_M mixture"
    assert reasons["blk.2.ffn_down.weight"] == "base type of Q4_K_M"
    assert reasons["blk.2.attn_q.weight"] == (
        "fallback: 576 is not a multiple of 256, Q4_K -> Q5_0 (base type of Q4_K_M)"
    )
    assert reasons["blk.3.attn_k.weight"] == "override by pattern 'attn_k'"


@pytest.mark.parametrize("pattern", ["(", "a" * 600, "(?P<x>", "[z-a]"])
def test_unusable_patterns_are_errors(pattern):
    tensors = model("llama", 1, 256, 256, tied=True)
    facts = ModelFacts(gguf_arch="llama", blocks=1, heads=1, kv_heads=1)
    selection = choose_types(
        tensors, facts, "Q4_0", overrides=[Override(pattern=pattern, type="Q8_0")]
    )
    assert [f.reason for f in selection.findings] == ["PATTERN_INVALID"]


def test_patterns_without_effect_are_reported():
    tensors = model("llama", 1, 256, 256, tied=True)
    facts = ModelFacts(gguf_arch="llama", blocks=1, heads=1, kv_heads=1)
    unused = choose_types(tensors, facts, "Q4_0", overrides=[Override(pattern="x9", type="Q8_0")])
    assert [f.reason for f in unused.findings] == ["PATTERN_UNMATCHED"]
    ignored = choose_types(tensors, facts, "F16", overrides=[Override(pattern="attn", type="Q8_0")])
    assert [f.reason for f in ignored.findings] == ["GGUF_OVERRIDES_IGNORED"]


def test_rows_that_fit_nothing_stay_f16():
    """llama-quantize gives up here; its converter writes F16."""
    tensors = model("llama", 1, 250, 256, tied=True)
    facts = ModelFacts(gguf_arch="llama", blocks=1, heads=1, kv_heads=1)
    for file_type in ("Q8_0", "Q4_K_M", "IQ4_NL"):
        selection, types = ours(tensors, facts, file_type)
        assert types["blk.0.attn_q.weight"] == "F16"
        assert [f.reason for f in selection.findings] == ["GGUF_ROWS_DO_NOT_FIT"]
        assert selection.findings[0].severity is Severity.WARNING


def test_a_column_is_one_dimensional():
    tensor = TensorToType(name="blk.0.x.weight", shape=(1, 256), source_type="F32")
    facts = ModelFacts(gguf_arch="llama", blocks=1, heads=1, kv_heads=1)
    assert choose_types([tensor], facts, "Q4_0").choices[0].ggml_type == "F32"


def test_ids_are_those_of_the_gguf_package():
    for name, file_type in FILE_TYPES.items():
        member = "ALL_F32" if name == "F32" else f"MOSTLY_{name}"
        known = getattr(gguf.LlamaFileType, member, None)
        assert known is None or known.value == file_type.id
        assert file_type.base_type in GGML_TYPES
        assert file_type.bits_per_weight > 1
    assert set(ALIASES.values()) <= set(FILE_TYPES)
