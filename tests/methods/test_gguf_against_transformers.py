"""Converted checkpoints run in llama.cpp and compute what transformers computes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from tests.methods import gguf_files, gguf_models

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GEMMA = {"query_pre_attn_scalar": 16, "sliding_window": 8, "tie_word_embeddings": True}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
}
LONG_FACTORS = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
SHORT_FACTORS = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7]
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "long_factor": LONG_FACTORS,
    "short_factor": SHORT_FACTORS,
    "original_max_position_embeddings": 256,
}

CASES = {
    "llama": ("Llama", {}),
    "llama tied, biases": (
        "Llama",
        {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    ),
    "llama 3 rope": ("Llama", {"rope_parameters": LLAMA3_ROPE}),
    "llama linear rope": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 5e3, "factor": 2.0}},
    ),
    "mistral, wide heads": ("Mistral", {"head_dim": 32, "sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen2 yarn": ("Qwen2", {"rope_parameters": YARN}),
    "qwen3, wide heads": ("Qwen3", {"head_dim": 32}),
    "gemma2": ("Gemma2", GEMMA),
    "gemma3": ("Gemma3Text", GEMMA | {"num_hidden_layers": 7}),
    "gemma3, other pattern": (
        "Gemma3Text",
        GEMMA
        | {"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2},
    ),
    "phi3": ("Phi3", {"sliding_window": None}),
    "phi3 longrope": (
        "Phi3",
        {
            "sliding_window": None,
            "rope_parameters": LONGROPE,
            "original_max_position_embeddings": 256,
        },
    ),
}
CLASSES = {"Gemma3Text": "Gemma3ForCausalLM"}


def save(folder: Path, case: str) -> None:
    import transformers

    family, options = CASES[case]
    if family in ("Qwen2", "Qwen3"):
        pre_tokenizer = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
        gguf_models.train_byte_level(folder, pre_tokenizer)
        size = 512
    else:
        gguf_models.train_sentencepiece(folder, add_dummy_prefix=not family.startswith("Gemma"))
        size = 600
    config_class = getattr(transformers, f"{family}Config")
    model_class = getattr(transformers, CLASSES.get(family, f"{family}ForCausalLM"))
    config = config_class(**(SIZES | {"vocab_size": size} | options))
    gguf_models.save_random_model(folder, config, model_class)


def logits_of_transformers(folder: Path, tokens: list[int]) -> np.ndarray:
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].numpy()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_logits(tmp_path, case):
    library = gguf_files.llama()
    save(tmp_path, case)
    _, headers, _ = gguf_models.read_checkpoint(tmp_path)
    path = tmp_path / "model.gguf"
    description, _ = gguf_models.convert(tmp_path, path, "F32", 0)
    sources = {t.source for t in description.tensors if t.source} | {
        t.name for t in description.skipped
    }
    assert sources == set(headers)
    # Longer than the sliding windows, and for longrope on either side of the original context.
    for length in (24, 300) if "longrope" in case else (24,):
        tokens = np.random.default_rng(5).integers(3, 500, length).tolist()
        with library.open(path, n_ctx=256 if length < 256 else 512) as model:
            got = model.logits(tokens)
        want = logits_of_transformers(tmp_path, tokens)
        compared = slice(-1, None) if length > 256 else slice(None)
        scale = np.abs(want).max()
        np.testing.assert_allclose(got[compared], want[compared], rtol=1e-2, atol=2e-3 * scale)


@pytest.fixture(scope="module")
def real_model() -> Path:
    folder = os.environ.get("QUANTD_TEST_MODEL")
    if not folder or not Path(folder, "config.json").is_file():
        pytest.skip("QUANTD_TEST_MODEL is not set to a SmolLM2 folder")
    return Path(folder)


@pytest.fixture(scope="module")
def real_gguf(real_model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("real") / "model.gguf"
    gguf_models.convert(real_model, path, "BF16", 32)
    return path


PROMPTS = [
    *gguf_models.TEXTS,
    "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n",
    "def f(x):\n    return  x**2 # 1234567890",
    "<|endoftext|>x<|unknown|>",
]


def test_a_real_model_tokenizes_and_answers(real_model, real_gguf):
    from tokenizers import Tokenizer

    oracle = Tokenizer.from_file(str(real_model / "tokenizer.json"))
    with gguf_files.llama().open(real_gguf) as model:
        for text in PROMPTS:
            assert model.tokenize(text) == oracle.encode(text).ids, text
        answer = model.greedy(model.tokenize("The capital of France is"), 2)
        assert model.detokenize(answer) == " Paris."
        config = json.loads((real_model / "config.json").read_text())
        assert (model.bos, model.eos) == (config["bos_token_id"], config["eos_token_id"])


@pytest.mark.slow
def test_a_real_model_continues_as_in_transformers(real_model, tmp_path):
    """In F32: with 16-bit weights llama.cpp rounds activations too, and near ties flip."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(real_model)
    reference = transformers.AutoModelForCausalLM.from_pretrained(real_model, dtype=torch.float32)
    prompt = tokenizer("The three primary colours are")["input_ids"]
    want = reference.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)[0]
    gguf_models.convert(real_model, tmp_path / "model.gguf", "F32", 0)
    with gguf_files.llama().open(tmp_path / "model.gguf") as model:
        for text in PROMPTS:
            assert model.tokenize(text) == tokenizer(text)["input_ids"], text
        assert model.greedy(prompt, 24) == want[len(prompt) :].tolist()
