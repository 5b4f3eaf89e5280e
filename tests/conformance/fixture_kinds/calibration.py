"""Data to calibrate with, and checkpoints that it does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.conformance.fixture_kinds import Maker
from tests.conformance.fixture_kinds.checkpoints import changed, with_config

TEXT = "the other one is there. " * 200


def file(content: bytes) -> Maker:
    """A file that holds this."""
    return lambda path: path.write_bytes(content)


def template(text: str) -> Maker:
    """The tiny checkpoint with a chat template."""

    def write(folder: Path) -> None:
        (folder / "chat_template.jinja").write_text(text)

    return changed(write)


def malformed(folder: Path) -> None:
    """A tokenizer.json that is JSON, and no tokenizer."""
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')


FIXTURES: Mapping[str, Maker] = {
    "texts.txt": file(TEXT.encode()),
    "large.txt": file("\n\n".join([TEXT] * 800).encode()),
    "texts.csv": file(b"a"),
    "latin.txt": file(b"caf\xe9"),
    "broken.jsonl": file(b"{"),
    "fieldless.jsonl": file(b"{}"),
    "folder.txt": lambda path: path.mkdir(),
    "template-fails": template("{{ raise_exception('No') }}"),
    "tokenizer-malformed": changed(malformed),
    "few-rows": with_config(vocab_size=50),
}
