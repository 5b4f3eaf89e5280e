"""The token table of a GGUF file: texts, types, and scores or merges.

Two kinds exist in the supported families: byte-level BPE ("gpt2" in llama.cpp, GPT-2 byte
alphabet, merges) and SentencePiece BPE ("llama" in llama.cpp, scores, byte tokens).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from quantd_server.errors import quoted
from quantd_server.methods.gguf.sentencepiece_model import SentencePieceModel

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""``llama_token_type``."""

SPACE = "▁"
"""SentencePiece's visible space, U+2581."""
ADDED_SCORE = -1000.0
UNUSED_SCORE = -10000.0
SPECIAL_LOOKING = frozenset({"<pad>", "<mask>", "<2mass>", "[@BOS@]"})


class AddedToken(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    content: str
    special: bool
    strips: bool = False
    """Whether it swallows the spaces around it."""


class Vocabulary:
    """Tokens by id; ids that nothing fills are unused ``[PAD<id>]`` tokens."""

    def __init__(self, size: int) -> None:
        self.tokens = [f"[PAD{index}]" for index in range(size)]
        self.types = [UNUSED] * size
        self.scores = [UNUSED_SCORE] * size
        self.merges: list[str] = []
        self.out_of_range: list[str] = []
        self.ids: dict[str, int] = {}
        """Token text as the tokenizer files write it, to id."""

    def put(self, token_id: int, text: str, token_type: int, score: float = 0.0) -> None:
        if not 0 <= token_id < len(self.tokens):
            self.out_of_range.append(text)
            return
        self.tokens[token_id] = text
        self.types[token_id] = token_type
        self.scores[token_id] = score
        self.ids[text] = token_id

    def put_added(self, added: Iterable[AddedToken], *, visible_space: bool) -> None:
        """Added tokens: special ones become CONTROL, the others USER_DEFINED.

        llama.cpp looks for them in the raw text, so with ``visible_space`` (SentencePiece) their
        ``▁`` is written as a space. Tokens that look special count as special even where the
        tokenizer forgot to say so, as in llama.cpp's converter.
        """
        for token in added:
            special = token.special or _looks_special(token.content)
            text = token.content
            if visible_space and not special:
                text = text.replace(SPACE, " ")
            unknown = 0 <= token.id < len(self.types) and self.types[token.id] == UNKNOWN
            kind = UNKNOWN if unknown else CONTROL if special else USER_DEFINED
            self.put(token.id, text, kind, ADDED_SCORE)
            if 0 <= token.id < len(self.tokens):
                self.ids[token.content] = token.id

    def duplicates(self) -> list[str]:
        """Texts that two ids share; llama.cpp aborts on them."""
        return [text for text, count in Counter(self.tokens).items() if count > 1]


def _looks_special(text: str) -> bool:
    return (
        text in SPECIAL_LOOKING
        or (text.startswith("<|") and text.endswith("|>"))
        or (text.startswith("<｜") and text.endswith("｜>"))
        or (text.startswith("<unused") and text.endswith(">"))
    )


def byte_level(model: Mapping[str, Any], added: list[AddedToken], size: int) -> Vocabulary:
    """The vocabulary of a byte-level BPE model. Raises ValueError for a malformed model."""
    vocabulary = Vocabulary(size)
    for text, token_id in read_vocab(model).items():
        vocabulary.put(token_id, text, NORMAL)
    vocabulary.put_added(added, visible_space=False)
    # A space inside a merge would end its first half: GGUF writes it as in the byte alphabet.
    vocabulary.merges = [
        f"{left.replace(' ', 'Ġ')} {right.replace(' ', 'Ġ')}" for left, right in read_merges(model)
    ]
    return vocabulary


def sentencepiece(model: SentencePieceModel, added: list[AddedToken], size: int) -> Vocabulary:
    vocabulary = Vocabulary(size)
    for token_id, piece in enumerate(model.pieces):
        vocabulary.put(token_id, piece.text, piece.type, piece.score)
    vocabulary.put_added(added, visible_space=True)
    return vocabulary


def from_merges(
    model: Mapping[str, Any], added: list[AddedToken], size: int, unknown: str
) -> Vocabulary:
    """The SentencePiece vocabulary of a tokenizer.json (BPE with byte fallback).

    SentencePiece's score of a BPE piece is minus its rank, and the merges of tokenizer.json are
    sorted by it; so the position of the first merge that makes a piece gives its score back.
    ``unknown`` is the text of the unknown token. Raises ValueError for a malformed model.
    """
    vocab = read_vocab(model)
    scores: dict[str, float] = {}
    for left, right in read_merges(model):
        scores.setdefault(left + right, -float(len(scores)))
    vocabulary = Vocabulary(size)
    for text, token_id in vocab.items():
        if text == unknown:
            vocabulary.put(token_id, text, UNKNOWN)
        elif _is_byte_token(text):
            vocabulary.put(token_id, text, BYTE)
        else:
            vocabulary.put(token_id, text, NORMAL, scores.get(text, -float(len(scores))))
    vocabulary.put_added(added, visible_space=True)
    return vocabulary


def merges_without_score(model: Mapping[str, Any], added: list[AddedToken]) -> int:
    """How many pieces llama.cpp, which merges by score, builds from other pairs or in another
    order than the merge list says.

    0 for every vocabulary that came from SentencePiece: then the two algorithms agree.
    """
    vocab, listed = read_vocab(model), read_merges(model)
    merges = set(listed)
    literal = {token.content for token in added}
    unlisted = {
        text
        for text in vocab
        if text not in literal and not _is_byte_token(text)
        for cut in range(1, len(text))
        if text[:cut] in vocab and text[cut:] in vocab and (text[:cut], text[cut:]) not in merges
    }
    finished: set[str] = set()
    previous = ""
    for left, right in listed:
        if (text := left + right) != previous:
            if text in finished:
                unlisted.add(text)
            finished.add(previous)
            previous = text
    return len(unlisted)


def missing_byte_tokens(vocabulary: Vocabulary) -> int:
    """Byte tokens ``<0x00>``..``<0xFF>`` that are absent; llama.cpp aborts where it needs one."""
    return sum(f"<0x{value:02X}>" not in vocabulary.ids for value in range(256))


def _is_byte_token(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def read_vocab(model: Mapping[str, Any]) -> dict[str, int]:
    vocab = model.get("vocab")
    if not isinstance(vocab, dict) or not all(type(i) is int for i in vocab.values()):
        raise ValueError("model.vocab is not an object of token to id")
    return vocab


def read_merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Merges in rank order, from either form: ``"a b"`` or ``["a", "b"]``."""
    merges = model.get("merges")
    if not isinstance(merges, list):
        raise ValueError("model.merges is not a list")
    result = []
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(map(_is_text, pair)):
            raise ValueError(f"model.merges holds {quoted(merge)}, which is not a pair of tokens")
        result.append((pair[0], pair[1]))
    return result


def _is_text(value: object) -> bool:
    return isinstance(value, str)
