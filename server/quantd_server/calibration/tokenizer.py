"""The tokenizer of a checkpoint, without transformers: the same ids, from tokenizer.json.

What is put before and behind a text is what its post-processor says. ``add_bos_token`` and
``add_eos_token`` of tokenizer_config.json change nothing where there is a tokenizer.json, as in
transformers 5.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from quantd_server.calibration.chat_template import ChatTemplate
from quantd_server.checkpoint.source_file import open_source, read_exactly, read_json_object
from quantd_server.errors import CheckpointError, QuantdError, quoted

MAX_TOKENIZER_BYTES = 256 << 20
MAX_CONFIG_BYTES = 16 << 20
MAX_TEMPLATE_BYTES = 1 << 20

_SPECIAL_TOKENS = tuple(
    f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
)


class Tokenizer:
    """Turns texts into token ids."""

    def __init__(self, backend: Backend, config: Mapping[str, Any]) -> None:
        """``config``: what tokenizer_config.json holds."""
        # What the file says of them is how its writer used it last.
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.special_tokens = special_tokens(config)
        self.prefix = self._find_prefix()
        """Ids that are put before a text."""

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
        """The ids of each text, as transformers' ``tokenizer(text)`` gives them."""
        # encode_batch_fast: without the offsets, which cost more than the ids.
        found = self._backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        return [encoding.ids for encoding in found]

    def _find_prefix(self) -> tuple[int, ...]:
        (plain,) = self.encode(["a"], add_special_tokens=False)
        (whole,) = self.encode(["a"], add_special_tokens=True)
        for begin in range(len(whole) - len(plain) + 1):
            if whole[begin : begin + len(plain)] == plain:
                return tuple(whole[:begin])
        return ()


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in a checkpoint folder.

    Raises QuantdError TOKENIZER_MISSING, TOKENIZER_MALFORMED, or what ``open_source`` raises.
    """
    raw = _read(folder, "tokenizer.json", MAX_TOKENIZER_BYTES)
    if raw is None:
        raise CheckpointError(
            reason="TOKENIZER_MISSING",
            message="the checkpoint has no tokenizer.json, which turns texts into tokens",
            remedy="load the tokenizer with transformers' AutoTokenizer and save it into the "
            "folder with save_pretrained, or give token ids",
        )
    try:
        return Tokenizer(_backend(raw), tokenizer_config(folder))
    except (QuantdError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a panic of the library is no Exception
        raise CheckpointError(
            reason="TOKENIZER_MALFORMED",
            message=f"tokenizer.json cannot be used: {quoted(str(error))}",
            remedy="restore tokenizer.json from where the checkpoint came from",
        ) from None


_last_backend: dict[bytes, Backend] = {}
"""The backend of the file that was opened last, by the file's digest."""


def _backend(raw: bytes) -> Backend:
    """What ``raw`` describes; once for the same file as before.

    Not for the time it takes: the library keeps some megabytes for good of each object that it has
    encoded a text with (tokenizers 0.23.3), and a planner plans for weeks.
    """
    digest = hashlib.sha256(raw).digest()
    if digest not in _last_backend:
        _last_backend.clear()  # before there are two of them: they can be large
        _last_backend[digest] = Backend.from_buffer(raw)
    return _last_backend[digest]


def open_chat_template(folder: Path, tokenizer: Tokenizer, field: str) -> ChatTemplate:
    """The chat template in a checkpoint folder.

    Raises QuantdError CHAT_TEMPLATE_MISSING or CHAT_TEMPLATE_FAILED.
    """
    raw = _read(folder, "chat_template.jinja", MAX_TEMPLATE_BYTES)
    source: Any = raw.decode("utf-8", "replace") if raw is not None else None
    if source is None:
        source = tokenizer_config(folder).get("chat_template")
    if isinstance(source, list):  # several, by name
        named = {entry.get("name"): entry for entry in source if isinstance(entry, dict)}
        source = named.get("default", {}).get("template")
    if not isinstance(source, str):
        raise QuantdError(
            reason="CHAT_TEMPLATE_MISSING",
            field=field,
            kind="precondition",
            message="the checkpoint has no chat template (chat_template.jinja, or the default one "
            "in tokenizer_config.json)",
            remedy="leave apply_chat_template out, or add the template of the model",
        )
    return ChatTemplate(source, tokenizer.special_tokens, field)


def tokenizer_config(folder: Path) -> dict[str, Any]:
    """What tokenizer_config.json holds; nothing if there is none."""
    try:
        return read_json_object(folder, "tokenizer_config.json", MAX_CONFIG_BYTES)
    except CheckpointError as error:
        if error.reason == "FILE_NOT_FOUND":
            return {}
        raise


def special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Texts of the special tokens by name."""
    found = {}
    for name in _SPECIAL_TOKENS:
        token = config.get(name)
        content = token.get("content") if isinstance(token, dict) else token
        if isinstance(content, str):
            found[name] = content
    return found


def _read(folder: Path, name: str, limit: int) -> bytes | None:
    try:
        descriptor = open_source(folder, name)
    except CheckpointError as error:
        if error.reason == "FILE_NOT_FOUND":
            return None
        raise
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
