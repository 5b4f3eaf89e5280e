"""Reads ``tokenizer.model``: a protobuf ``sentencepiece.ModelProto``.

Only the few fields that GGUF needs are read, from the wire format itself
(sentencepiece/src/sentencepiece_model.proto): no import of sentencepiece, which would run its
native parser on an untrusted file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

BPE = 2
"""``TrainerSpec.ModelType`` of the models that llama.cpp's "llama" tokenizer implements."""
MODEL_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
NORMAL = 1
"""``SentencePiece.Type``; the numbers are those of llama.cpp's token types."""

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Piece(msgspec.Struct, frozen=True):
    text: str
    score: float
    type: int
    """1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte."""


class SentencePieceModel(msgspec.Struct, frozen=True, kw_only=True):
    pieces: list[Piece]
    model_type: int
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    has_normalization_rules: bool


class MalformedModel(ValueError):
    """The bytes are no sentencepiece model."""


def parse(raw: bytes) -> SentencePieceModel:
    """Raises :class:`MalformedModel`."""
    pieces: list[Piece] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    for number, value in _fields(raw):
        if number == 1 and isinstance(value, bytes):
            pieces.append(_piece(value))
        elif number == 2 and isinstance(value, bytes):
            trainer |= dict(_fields(value))
        elif number == 3 and isinstance(value, bytes):
            normalizer |= dict(_fields(value))
    if not pieces:
        raise MalformedModel("it holds no pieces")
    return SentencePieceModel(
        pieces=pieces,
        model_type=_integer(trainer.get(3), 1),
        add_dummy_prefix=bool(_integer(normalizer.get(3), 1)),
        remove_extra_whitespaces=bool(_integer(normalizer.get(4), 1)),
        has_normalization_rules=bool(normalizer.get(2)),
    )


def _piece(raw: bytes) -> Piece:
    fields = dict(_fields(raw))
    text, score = fields.get(1, b""), fields.get(2, b"\0\0\0\0")
    if not isinstance(text, bytes) or not isinstance(score, bytes) or len(score) != 4:
        raise MalformedModel("a piece is malformed")
    try:
        return Piece(text.decode(), struct.unpack("<f", score)[0], _integer(fields.get(3), NORMAL))
    except UnicodeDecodeError as error:
        raise MalformedModel("a piece is not UTF-8") from error


def _integer(value: int | bytes | None, default: int) -> int:
    if value is None:
        return default
    if isinstance(value, bytes):
        raise MalformedModel("a number is malformed")
    return value


def _fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field number and value of each field; numbers for varints, bytes for all else."""
    position = 0
    while position < len(raw):
        tag, position = _varint(raw, position)
        kind = tag & 7
        if kind == VARINT:
            value, position = _varint(raw, position)
            yield tag >> 3, value
            continue
        if kind == BYTES:
            length, position = _varint(raw, position)
        elif kind in (FIXED32, FIXED64):
            length = 4 if kind == FIXED32 else 8
        else:
            raise MalformedModel(f"wire type {kind} is not known")
        if position + length > len(raw):
            raise MalformedModel("it ends inside a field")
        yield tag >> 3, raw[position : position + length]
        position += length


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index in range(10):
        if position >= len(raw):
            raise MalformedModel("it ends inside a number")
        byte = raw[position]
        position += 1
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position
    raise MalformedModel("a number is too long")
