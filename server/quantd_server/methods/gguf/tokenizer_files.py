"""Reads the tokenizer files of a checkpoint folder; the only I/O of the tokenizer conversion."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from quantd_server.checkpoint.source_file import open_source, read_exactly, read_json_object
from quantd_server.errors import CheckpointError, Finding

MAX_JSON_BYTES = 256_000_000
MAX_MODEL_BYTES = 64_000_000
MAX_TEMPLATE_BYTES = 4_000_000


class TokenizerFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What was there; None for a file that is absent."""

    tokenizer_json: dict[str, Any] | None = None
    tokenizer_config: dict[str, Any] = {}
    chat_template: str | None = None
    """Text of chat_template.jinja."""
    sentencepiece: bytes | None = None
    """Bytes of tokenizer.model."""


def read_tokenizer_files(folder: Path) -> tuple[TokenizerFiles, list[Finding]]:
    """Reads what exists in ``folder``; a file that is there but broken is an ERROR finding."""
    findings: list[Finding] = []

    def json_file(name: str) -> dict[str, Any] | None:
        try:
            return read_json_object(folder, name, MAX_JSON_BYTES)
        except CheckpointError as error:
            _report(error, findings)
            return None

    def bytes_file(name: str, limit: int) -> bytes | None:
        try:
            return _read(folder, name, limit)
        except CheckpointError as error:
            _report(error, findings)
            return None

    template = bytes_file("chat_template.jinja", MAX_TEMPLATE_BYTES)
    files = TokenizerFiles(
        tokenizer_json=json_file("tokenizer.json"),
        tokenizer_config=json_file("tokenizer_config.json") or {},
        chat_template=None if template is None else template.decode("utf-8", "replace"),
        sentencepiece=bytes_file("tokenizer.model", MAX_MODEL_BYTES),
    )
    return files, findings


def mapping(value: object) -> Mapping[str, Any]:
    """``value`` if it is a JSON object, else an empty one: the files may hold anything."""
    return value if isinstance(value, Mapping) else {}


def _report(error: CheckpointError, findings: list[Finding]) -> None:
    """An absent file is no finding here: which files are needed is decided later."""
    if error.reason != "FILE_NOT_FOUND":
        findings.append(error.finding)


def _read(folder: Path, name: str, limit: int) -> bytes:
    descriptor = open_source(folder, name)
    try:
        size = os.fstat(descriptor).st_size
        if size > limit:
            raise CheckpointError(
                reason="FILE_TOO_LARGE",
                message=f"{name} has {size} bytes; at most {limit} are read",
                remedy=f"check that {name} is what its name says",
            )
        return read_exactly(descriptor, 0, size, name)
    finally:
        os.close(descriptor)
