"""Tiny random models and tokenizers, made by the libraries that users make theirs with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from tests.methods import gguf_files

from quantd_server.methods.gguf.architectures import describe
from quantd_server.methods.gguf.description import ArchitectureDescription
from quantd_server.methods.gguf.metadata_writer import TypedTensor
from quantd_server.methods.gguf.tokenizer import TokenizerDescription, describe_tokenizer
from quantd_server.methods.gguf.tokenizer_files import read_tokenizer_files

SENTENCE = (
    "the of and to in that is was he for it with as his on be at by had not are but from or have "
    "an they which one you were her all she there would their we him been has when who will more "
    "no if out so said what up its about into than them can only other new some could time these "
    "naïve café größe déjà 東京 Москва θεός 123 4567 89 3.14 don't it's we're I'll"
)
TEXTS = [
    "Hello world",
    "the time  when   they were new",
    "  leading and trailing  ",
    "It's 12345 67 3.14, isn't it? WE'RE",
    "naïve café 東京 Ωmega 🙂 \u200d x\u0301",
    "line\nbreaks\r\n\n\nand\ttabs",
    "",
    " ",
    "a",
]


def corpus(lines: int = 2000) -> list[str]:
    rng = np.random.default_rng(7)
    return [" ".join(rng.choice(SENTENCE.split(), rng.integers(3, 12))) for _ in range(lines)]


def train_sentencepiece(folder: Path, **options) -> Path:
    """``tokenizer.model`` of Llama's kind: BPE, byte fallback, no normalization."""
    import sentencepiece

    defaults = {
        "model_type": "bpe",
        "vocab_size": 600,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "hard_vocab_limit": False,
        "minloglevel": 2,
        "num_threads": 1,
    }
    prefix = folder / "tokenizer"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_prefix=str(prefix), **(defaults | options)
    )
    (folder / "tokenizer.vocab").unlink()
    return folder / "tokenizer.model"


def train_byte_level(folder: Path, pre_tokenizer: dict, *, bos: str | None = None) -> None:
    """tokenizer.json and tokenizer_config.json of a byte-level BPE with the given splitting."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    content = json.loads(tokenizer.to_str())
    content["pre_tokenizer"] = pre_tokenizer
    if bos:
        content["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": bos, "type_id": 0}}]
            + [{"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}]
            + [{"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {
                bos: {"id": bos, "ids": [tokenizer.token_to_id(bos)], "tokens": [bos]}
            },
        }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos or "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def save_random_model(folder: Path, config, model_class) -> None:
    """A model of ``config`` whose every parameter, norms and biases too, is random."""
    import torch

    torch.manual_seed(3)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2 if parameter.dim() == 1 else 0.1)
    model.save_pretrained(folder)


def read_checkpoint(folder: Path) -> tuple[dict, dict, dict[str, NDArray[np.float32]]]:
    """config.json, (dtype, shape) by tensor, and the float32 values."""
    import torch

    config = json.loads((folder / "config.json").read_text())
    headers, weights = {}, {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 -- a safetensors file is no dict
                part = file.get_slice(name)
                headers[name] = (part.get_dtype(), tuple(part.get_shape()))
                weights[name] = file.get_tensor(name).to(torch.float32).numpy()
    return config, headers, weights


def convert(
    folder: Path, destination: Path, ggml_type: str, file_type: int
) -> tuple[ArchitectureDescription, TokenizerDescription]:
    """Writes the whole checkpoint as an unquantized .gguf, norms in F32, by our descriptions."""
    config, headers, weights = read_checkpoint(folder)
    description = describe(config, headers)
    rows = next(t.shape[0] for t in description.tensors if t.name == "token_embd.weight")
    files, broken = read_tokenizer_files(folder)
    tokenizer = describe_tokenizer(files, config, rows)
    findings = [*description.findings, *broken, *tokenizer.findings]
    assert not [f for f in findings if f.severity == "ERROR"], findings
    tensors = [
        (
            TypedTensor(name=t.name, shape=t.shape, ggml_type="F32" if t.keep_f32 else ggml_type),
            gguf_files.transformed(t, weights),
        )
        for t in description.tensors
    ]
    metadata = [*description.metadata, *tokenizer.metadata]
    gguf_files.write(destination, description.gguf_arch, metadata, tensors, file_type)
    return description, tokenizer
