"""From a configuration to token sequences: in planning, to say what there is, and in the worker.

Both call the same functions with the same resolved configuration and get the same sequences. They
are light: no torch, no transformers, no numpy.
"""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from quantd_server.calibration import texts as sources
from quantd_server.calibration.chat_template import ChatTemplate
from quantd_server.calibration.config import (
    CalibrationConfig,
    CalibrationFile,
    CalibrationUsage,
    EvaluationConfig,
)
from quantd_server.calibration.packing import Tokens, concatenated, truncated
from quantd_server.calibration.sampling import spread_sample
from quantd_server.calibration.text_file import TextFile
from quantd_server.calibration.tokenizer import Tokenizer, open_chat_template, open_tokenizer
from quantd_server.errors import Finding, QuantdError, Severity

MAX_TOKENS = 1 << 21
"""Most tokens that one job runs through the model: 1024 sequences of 2048. Planning has a minute,
and a tokenizer makes half a million tokens a second at best."""

BYTES_PER_TOKEN = 8
"""Text that is read for each token asked for: nearly twice what English takes, so that the sample
is one of a larger text, and some of it may be dropped."""

MIN_READ_BYTES = 2 << 20

STRETCH_CHARACTERS = 1 << 16
"""Texts are joined to stretches of this size before they become tokens."""

SEPARATOR = "\n\n"
"""Between texts that are joined: they are paragraphs."""

BATCH = 32
"""Texts that become tokens in one call."""


class TokenData(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a job."""

    sequences: tuple[Tokens, ...]
    """Token ids, in the order in which they are used. All as long as asked for, but for those that
    came as tokens."""
    usage: CalibrationUsage
    findings: tuple[Finding, ...] = ()
    """What is odd about it; what makes it useless is raised."""


def read_calibration(
    config: CalibrationConfig, folder: Path, paths: Mapping[str, str]
) -> TokenData:
    """The sequences that a resolved ``config`` means with the tokenizer in ``folder``.

    ``paths`` has the real path of the file by its URI. Raises QuantdError: TOKENIZER_MISSING,
    TOKENIZER_MALFORMED, CHAT_TEMPLATE_MISSING, CHAT_TEMPLATE_FAILED, TEXT_FILE_FORMAT,
    TEXT_FILE_UNREADABLE, TEXT_NOT_UTF8, JSON_LINE_INVALID, JSON_FIELD_INVALID, TOO_MANY_TOKENS,
    NO_SAMPLES.
    """
    return _Reading(config, folder, paths, "spec.calibration", config).data()


def read_evaluation(config: EvaluationConfig, folder: Path, paths: Mapping[str, str]) -> TokenData:
    """As ``read_calibration``, but consecutive windows from the beginning of the text."""
    packing = CalibrationConfig(packing="CONCATENATE", apply_chat_template=False)
    return _Reading(config, folder, paths, "spec.evaluation", packing).data()


class _Reading:
    """One way through the data."""

    def __init__(
        self,
        config: CalibrationConfig | EvaluationConfig,
        folder: Path,
        paths: Mapping[str, str],
        field: str,
        packing: CalibrationConfig,
    ) -> None:
        assert config.num_samples is not None and config.sequence_length is not None
        self._config = config
        self._folder = folder
        self._paths = paths
        self._field = field
        self._packing = packing
        self._requested = config.num_samples
        self._length = config.sequence_length
        self._findings: list[Finding] = []

    def data(self) -> TokenData:
        if self._config.tokens is not None:
            given = self._config.tokens.sequences
            sequences = [Tokens("I", sequence.ids) for sequence in given]
        else:
            self._check_size()
            sequences = self._tokenized()
        chosen = tuple(sequences[place] for place in self._choice(len(sequences)))
        if not chosen:
            raise self._no_samples()
        if len(chosen) < self._requested:
            self._findings.append(self._too_few(len(chosen)))
        return TokenData(
            sequences=chosen,
            usage=CalibrationUsage(
                samples_requested=self._requested,
                samples_usable=len(chosen),
                tokens=sum(map(len, chosen)),
                sha256=digest(chosen),
            ),
            findings=tuple(self._findings),
        )

    def _choice(self, count: int) -> Sequence[int]:
        if isinstance(self._config, EvaluationConfig):
            return range(min(count, self._requested))
        return spread_sample(count, self._requested, self._config.seed or 0)

    def _tokenized(self) -> list[Tokens]:
        tokenizer = open_tokenizer(self._folder)
        chat = bool(self._packing.apply_chat_template)
        if self._config.texts is not None:
            found = sources.request_texts(self._config.texts.texts)
            return self._packed(found, tokenizer, chat=chat)
        if self._config.file is not None:
            config, path = self._config.file, self._paths[self._config.file.uri]
        else:
            part = (
                sources.EVALUATION_TEXT
                if isinstance(self._config, EvaluationConfig)
                else sources.CALIBRATION_TEXT
            )
            config, path = CalibrationFile(uri=""), str(part)
        field = f"{self._field}.file"
        limit = max(MIN_READ_BYTES, BYTES_PER_TOKEN * self._requested * self._length)
        spread = not isinstance(self._config, EvaluationConfig)
        with TextFile(path, f"{field}.uri", limit=limit, spread=spread) as file:
            if file.read_in_parts:
                self._findings.append(
                    _read_in_parts(file.size, limit, f"{field}.uri", spread=spread)
                )
            found = sources.file_texts(file, config, chat=chat, field=field)
            return self._packed(found, tokenizer, chat=chat)

    def _packed(
        self, texts: Iterator[sources.Text], tokenizer: Tokenizer, *, chat: bool
    ) -> list[Tokens]:
        plain: Iterator[str]
        if chat:
            field = f"{self._field}.apply_chat_template"
            plain = _rendered(texts, open_chat_template(self._folder, tokenizer, field))
        else:
            plain = (text for text, _ in texts if isinstance(text, str))
        if self._packing.packing == "TRUNCATE":
            # A template writes the special tokens itself.
            runs = _encoded(plain, tokenizer, add_special_tokens=not chat)
            sequences, dropped = truncated(runs, self._length)
            if dropped:
                self._findings.append(self._too_short(dropped, dropped + len(sequences)))
            return sequences
        stretches = plain if chat else joined(plain)
        runs = _encoded(stretches, tokenizer, add_special_tokens=False)
        return concatenated(runs, self._length, tokenizer.prefix)

    def _check_size(self) -> None:
        if self._requested * self._length > MAX_TOKENS:
            raise QuantdError(
                reason="TOO_MANY_TOKENS",
                field=f"{self._field}.num_samples",
                message=f"{self._requested} sequences of {self._length} tokens are more than "
                f"{MAX_TOKENS} tokens",
                remedy="lower num_samples or sequence_length",
            )

    def _too_few(self, usable: int) -> Finding:
        unit = "" if self._config.tokens is not None else f" of {self._length} tokens"
        return Finding(
            severity=Severity.WARNING,
            field=f"{self._field}.num_samples",
            reason="TOO_FEW_SAMPLES",
            message=f"the data gives {usable} sequences{unit}, {self._requested} were asked for",
            remedy="give more text, or lower num_samples or sequence_length",
            kind="precondition",
        )

    def _no_samples(self) -> QuantdError:
        return QuantdError(
            reason="NO_SAMPLES",
            field=self._field,
            kind="precondition",
            message=f"the data does not give a single sequence of {self._length} tokens",
            remedy="give more text, or lower sequence_length"
            + (
                "; packing CONCATENATE joins texts that are short"
                if self._packing.packing == "TRUNCATE"
                else ""
            ),
        )

    def _too_short(self, dropped: int, count: int) -> Finding:
        return Finding(
            severity=Severity.INFO,
            field=f"{self._field}.packing",
            reason="SHORT_TEXTS_DROPPED",
            message=f"{dropped} of {count} texts have fewer than {self._length} tokens and are "
            "not used",
            remedy="use packing CONCATENATE, which joins them, or lower sequence_length",
        )


def joined(texts: Iterable[str]) -> Iterator[str]:
    """The texts with blank lines between them, in stretches: long enough to look like one text to
    a tokenizer, and short enough for its memory.
    """
    waiting: list[str] = []
    size = 0
    for text in texts:
        if size >= STRETCH_CHARACTERS:
            yield SEPARATOR.join([*waiting, ""])
            waiting, size = [], 0
        waiting.append(text)
        size += len(text)
    if waiting:
        yield SEPARATOR.join(waiting)


def digest(sequences: Iterable[Tokens]) -> str:
    """SHA-256 of the token ids, each as 4 bytes, little-endian, sequence after sequence."""
    hashed = hashlib.sha256()
    for sequence in sequences:
        if sys.byteorder == "big":
            sequence = sequence[:]  # noqa: PLW2901 - a copy, to be swapped in place
            sequence.byteswap()
        hashed.update(sequence.tobytes())
    return hashed.hexdigest()


def _rendered(texts: Iterable[sources.Text], template: ChatTemplate) -> Iterator[str]:
    for text, place in texts:
        messages = [{"role": "user", "content": text}] if isinstance(text, str) else text
        yield template.render(messages, place)


def _encoded(
    texts: Iterable[str], tokenizer: Tokenizer, *, add_special_tokens: bool
) -> Iterator[list[int]]:
    waiting = iter(texts)
    while batch := list(itertools.islice(waiting, BATCH)):
        yield from tokenizer.encode(batch, add_special_tokens=add_special_tokens)


def _read_in_parts(size: int, limit: int, field: str, *, spread: bool) -> Finding:
    where = "in places spread evenly over it" if spread else "from its beginning"
    return Finding(
        severity=Severity.INFO,
        field=field,
        reason="TEXT_READ_IN_PARTS",
        message=f"of the file's {size} bytes, {limit} are read, {where}",
        remedy="",
    )
