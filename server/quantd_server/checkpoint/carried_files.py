"""Which files of a source checkpoint go into the output unchanged.

A list of what is wanted rather than of what is not: code (``*.py``), pickles, optimizer states
and anything unknown stay behind.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer.model.v*",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "*.tiktoken",
)
GENERATION_FILES = ("generation_config.json", "chat_template.jinja", "chat_template.json")
PROCESSOR_FILES = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)
LEGAL_FILES = ("license*", "licence*", "notice*", "copying*", "use_policy*")

MAX_CARRIED_BYTES = 256 << 20
"""Size from which a file is no tokenizer; it is not carried over."""

_EXACT = TOKENIZER_FILES + GENERATION_FILES + PROCESSOR_FILES
_NO_TEXT = (".py", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".safetensors", ".gguf", ".so")


def carried_files(names: Iterable[str]) -> tuple[str, ...]:
    """Those of ``names`` (relative to the checkpoint folder) that are carried over, sorted."""
    return tuple(sorted(name for name in names if _is_carried(name)))


def tokenizer_files(names: Iterable[str]) -> tuple[str, ...]:
    """Those of ``names`` that belong to the tokenizer, sorted."""
    return tuple(sorted(name for name in names if _matches(name, TOKENIZER_FILES)))


def _is_carried(name: str) -> bool:
    if "/" in name or name.startswith(".") or not name.isprintable():
        return False
    lower = name.lower()
    legal = _matches(lower, LEGAL_FILES) and not lower.endswith(_NO_TEXT)
    return legal or _matches(name, _EXACT)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
