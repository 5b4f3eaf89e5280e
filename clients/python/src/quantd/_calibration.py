"""Builders of the data that a job calibrates with and is measured on."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, TypeVar

from quantd import v1
from quantd._messages import fill

Config = TypeVar("Config", v1.CalibrationConfig, v1.EvaluationConfig)


def calibration(
    texts: Iterable[str] | None = None,
    *,
    tokens: Iterable[Iterable[int]] | None = None,
    file: str | os.PathLike[str] | None = None,
    json_field: str | None = None,
    num_samples: int | None = None,
    sequence_length: int | None = None,
    seed: int | None = None,
    packing: str | None = None,
    apply_chat_template: bool | None = None,
) -> v1.CalibrationConfig:
    """Calibration data. Without texts, tokens and file, the server's own text is used.

    Args:
        texts: Texts.
        tokens: Sequences of token ids, used as they are.
        file: A .txt or .jsonl file of the server: its path or URI.
        json_field: Field of a JSON line that holds the text, or the messages. Default "text", with
            `apply_chat_template` "messages".
        num_samples: Sequences to use. Default 128, of `tokens` all.
        sequence_length: Tokens in a sequence. Default 512.
        seed: Seed of the choice and the order. Default 0.
        packing: "concatenate" (texts are joined, then cut; default) or "truncate" (each text gives
            one sequence).
        apply_chat_template: Whether texts are wrapped in, and messages rendered by, the model's
            chat template. Default False.

    Returns:
        The configuration.

    Raises:
        ValueError: More than one kind of data is given, or `packing` is not known.
    """
    config = v1.CalibrationConfig(
        num_samples=num_samples,
        sequence_length=sequence_length,
        seed=seed,
    )
    fill(config, {"packing": packing, "apply_chat_template": apply_chat_template})
    return _with_data(config, texts, tokens, file, json_field)


def evaluation(
    texts: Iterable[str] | None = None,
    *,
    tokens: Iterable[Iterable[int]] | None = None,
    file: str | os.PathLike[str] | None = None,
    json_field: str | None = None,
    num_samples: int | None = None,
    sequence_length: int | None = None,
) -> v1.EvaluationConfig:
    """Data to measure the result on, read from its beginning; see `calibration`.

    Without texts, tokens and file, a part of the server's own text that calibration never sees.

    Args:
        texts: Texts.
        tokens: Sequences of token ids, used as they are.
        file: A .txt or .jsonl file of the server: its path or URI.
        json_field: Field of a JSON line that holds the text. Default "text".
        num_samples: Sequences to use. Default 8, of `tokens` all.
        sequence_length: Tokens in a sequence. Default 512.

    Returns:
        The configuration.

    Raises:
        ValueError: More than one kind of data is given.
    """
    config = v1.EvaluationConfig(num_samples=num_samples, sequence_length=sequence_length)
    return _with_data(config, texts, tokens, file, json_field)


def _with_data(
    config: Config,
    texts: Iterable[str] | None,
    tokens: Iterable[Iterable[int]] | None,
    file: str | os.PathLike[str] | None,
    json_field: str | None,
) -> Config:
    given: list[Any] = [data for data in (texts, tokens, file) if data is not None]
    if len(given) > 1:
        raise ValueError("give one of texts, tokens and file")
    if json_field is not None and file is None:
        raise ValueError("json_field: it is that of a file; give file too")
    if isinstance(texts, str):
        raise ValueError("texts: got one text, expected a list of texts")
    if texts is not None:
        config.texts.texts.extend(texts)
    elif tokens is not None:
        config.tokens.sequences.extend(v1.TokenSequence(ids=list(ids)) for ids in tokens)
    elif file is not None:
        config.file.CopyFrom(v1.CalibrationFile(uri=os.fspath(file), json_field=json_field))
    return config
