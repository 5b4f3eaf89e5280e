"""What data a job calibrates and is measured with: the messages of the spec as structs."""

from __future__ import annotations

from typing import Literal

import msgspec

PackingPolicy = Literal["CONCATENATE", "TRUNCATE"]


class CalibrationTexts(msgspec.Struct, frozen=True, kw_only=True):
    """Texts of the request."""

    texts: tuple[str, ...]


class TokenSequence(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence of token ids."""

    ids: tuple[int, ...]


class CalibrationTokens(msgspec.Struct, frozen=True, kw_only=True):
    """Token ids of the request."""

    sequences: tuple[TokenSequence, ...]


class CalibrationFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of texts."""

    uri: str
    json_field: str | None = None


class CalibrationBuiltin(msgspec.Struct, frozen=True, kw_only=True):
    """The text that comes with the server."""


class CalibrationConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`CalibrationConfig` of the spec; at most one of the first four is set."""

    texts: CalibrationTexts | None = None
    tokens: CalibrationTokens | None = None
    file: CalibrationFile | None = None
    builtin: CalibrationBuiltin | None = None
    num_samples: int | None = None
    sequence_length: int | None = None
    seed: int | None = None
    packing: PackingPolicy | None = None
    apply_chat_template: bool | None = None


class EvaluationConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`EvaluationConfig` of the spec; at most one of the first four is set."""

    texts: CalibrationTexts | None = None
    tokens: CalibrationTokens | None = None
    file: CalibrationFile | None = None
    builtin: CalibrationBuiltin | None = None
    num_samples: int | None = None
    sequence_length: int | None = None


class CalibrationUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What data was asked for and what there is."""

    samples_requested: int
    samples_usable: int
    tokens: int
    sha256: str = ""
    """Of the token ids; empty before they were read."""
