"""Checkpoints and importance matrices that a conversion to GGUF has something to say about."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests import header_checkpoints, tiny_models
from tests.conformance.fixture_kinds import Maker
from tests.conformance.fixture_kinds.checkpoints import (
    changed,
    edit_json,
    with_config,
    with_tensors,
)
from tests.methods import gguf_models

SPACE = "▁"


def tokenizer(change: Callable[[dict[str, Any]], object]) -> Maker:
    """The tiny checkpoint with another tokenizer.json."""

    def edit(folder: Path) -> None:
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return changed(edit)


def sentencepiece(content: dict[str, Any]) -> Maker:
    """The tiny checkpoint with a tokenizer.json of Llama's kind: bytes, letters and merges."""

    def edit(folder: Path) -> None:
        (folder / "tokenizer.json").write_text(json.dumps(content))

    return changed(edit)


def llama_like(
    *, missing: int | None = None, merges: list[list[str]] | None = None, **members: Any
) -> dict[str, Any]:
    """A tokenizer of three special tokens, 256 bytes and a few pieces; ``missing`` is a byte."""
    pieces = ["<unk>", "<s>", "</s>"]
    pieces += [f"<0x{byte:02X}>" for byte in range(256) if byte != missing]
    pieces += [SPACE, "t", "h", "e", "th", "the", "he"]
    special = [
        {
            "id": place,
            "content": pieces[place],
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for place in range(3)
    ]
    return {
        "version": "1.0",
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Metaspace",
            "replacement": SPACE,
            "prepend_scheme": "always",
            "split": False,
        },
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {piece: place for place, piece in enumerate(pieces)},
            "merges": [["t", "h"], ["h", "e"], ["th", "e"]] if merges is None else merges,
        },
        **members,
    }


def splits_by_words(content: dict[str, Any]) -> None:
    """Splits text as no pre-tokenizer of llama.cpp does."""
    pattern = {"Regex": "\\w+"}
    split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    content["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [split, content["pre_tokenizer"] | {"use_regex": False}],
    }


def normalizes(folder: Path) -> None:
    """A SentencePiece model that normalizes text, which llama.cpp does not."""
    (folder / "tokenizer.json").unlink()
    gguf_models.train_sentencepiece(folder, normalization_rule_name="nmt_nfkc")


def strips(content: dict[str, Any]) -> None:
    """Lets a special token swallow the spaces behind it."""
    content["added_tokens"][0]["rstrip"] = True


def is_a_word_piece_model(content: dict[str, Any]) -> None:
    """A kind of tokenizer that llama.cpp has no reader for here."""
    content["model"]["type"] = "WordPiece"


def has_more_tokens(content: dict[str, Any]) -> None:
    """Tokens beyond the rows of the embedding."""
    more = {"id": 300, "content": "<more>", "special": True, "single_word": False}
    flags = {"lstrip": False, "rstrip": False, "normalized": False}
    content["added_tokens"].append(more | flags)


def adds_another_token(content: dict[str, Any]) -> None:
    """Puts a token before each text that is not the one that begins texts."""
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "th", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"th": {"id": "th", "ids": [257], "tokens": ["th"]}},
    }


def names_no_token(folder: Path) -> None:
    """Adds a token to each text, and does not say which."""
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True}))
    edit_json(folder / "config.json", bos_token_id=None)


def has_a_token_twice(folder: Path) -> None:
    """Two ids of the same text."""
    extra = {"added_tokens_decoder": {"265": {"content": "<|endoftext|>"}}}
    edit_json(folder / "tokenizer_config.json", **extra)


def eight_bit_floats(folder: Path) -> None:
    """A weight in a type that is no float of training."""
    config = tiny_models.config()
    name = "model.layers.0.mlp.up_proj.weight"
    header_checkpoints.write(folder, config, tiny_models.shapes(config), dtypes={name: "F8_E4M3"})


def matrix(values: Mapping[str, int]) -> Maker:
    """An importance matrix of so many ones for each name, in the older format."""
    content = struct.pack("<i", len(values))
    for name, count in values.items():
        content += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", 1, count)
        content += struct.pack(f"<{count}f", *[1.0] * count)
    return lambda path: path.write_bytes(content)


FIXTURES: Mapping[str, Maker] = {
    "mamba": with_config(model_type="mamba"),
    "gelu": with_config(hidden_act="gelu"),
    "text-sizes": with_config(hidden_size="64"),
    "other-sizes": with_config(intermediate_size=128),
    "sliding": with_config(model_type="mistral", sliding_window=64),
    "narrow-rows": lambda folder: tiny_models.write(folder, hidden=48),
    "unmapped": with_tensors(what__is__this=("BF16", (4,), bytes(8))),
    "eight-bit-floats": eight_bit_floats,
    "no-tokenizer": changed(lambda folder: (folder / "tokenizer.json").unlink()),
    "tokenizer-broken": changed(lambda folder: (folder / "tokenizer.json").write_text("[]")),
    "tokenizer-splits": tokenizer(splits_by_words),
    "tokenizer-normalizes": changed(normalizes),
    "tokenizer-strips": tokenizer(strips),
    "tokenizer-word-piece": tokenizer(is_a_word_piece_model),
    "tokenizer-more": tokenizer(has_more_tokens),
    "tokenizer-template": tokenizer(adds_another_token),
    "tokenizer-nameless": changed(names_no_token),
    "tokenizer-twice": changed(has_a_token_twice),
    "tokenizer-bytes": sentencepiece(llama_like(missing=7)),
    "tokenizer-merges": sentencepiece(llama_like(merges=[["t", "h"], ["th", "e"]])),
    "tokenizer-first": sentencepiece(
        llama_like(
            pre_tokenizer={
                "type": "Metaspace",
                "replacement": SPACE,
                "prepend_scheme": "first",
                "split": False,
            }
        )
    ),
    "no.imatrix": lambda path: path.write_bytes(b"what is this, no matrix"),
    "some.imatrix": matrix({"blk.0.attn_q.weight": 64}),
    "short.imatrix": matrix({"blk.0.attn_q.weight": 63}),
}
