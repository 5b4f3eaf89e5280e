"""The ``tokenizer.*`` keys of a GGUF file, complete enough for llama.cpp to run it.

Made from tokenizer.json, tokenizer_config.json, tokenizer.model and chat_template.jinja. Nothing
is guessed: a tokenizer that llama.cpp would read differently is a finding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from quantd_server.errors import Finding, quoted
from quantd_server.methods.gguf import pre_tokenizers, sentencepiece_model, vocabulary
from quantd_server.methods.gguf.description import MetadataEntry, array, boolean, string
from quantd_server.methods.gguf.report import Report
from quantd_server.methods.gguf.special_tokens import (
    chat_template_metadata,
    special_token_metadata,
    token_text,
)
from quantd_server.methods.gguf.tokenizer_files import TokenizerFiles, mapping
from quantd_server.methods.gguf.vocabulary import SPACE, AddedToken, Vocabulary

MAX_QUOTED_FORM = 400
MAX_VOCABULARY = 4_000_000

SPACE_PREFIX_FORMS: dict[tuple[pre_tokenizers.Form, pre_tokenizers.Form], bool] = {
    ((("prepend", SPACE), ("replace", "literal ' '", SPACE)), ()): True,
    ((("replace", "literal ' '", SPACE),), ()): False,
    (
        (("replace", "literal ' '", SPACE),),
        (("split", "literal ' '", "MergedWithPrevious", False),),
    ): False,
    ((), (("metaspace", SPACE, "always"),)): True,
    ((), (("metaspace", SPACE, "first"),)): True,
    ((), (("metaspace", SPACE, "never"),)): False,
}
"""(normalizer, pre-tokenizer) of SentencePiece tokenizers in tokenizer.json to add_space_prefix.

Metaspace adds its prefix only to text that does not begin with a space; llama.cpp, like
SentencePiece itself, always adds it.
"""


class TokenizerDescription(msgspec.Struct, frozen=True, kw_only=True):
    """``tokenizer.*`` metadata; usable if no finding is an ERROR."""

    metadata: tuple[MetadataEntry, ...]
    findings: tuple[Finding, ...]


def describe_tokenizer(
    files: TokenizerFiles, config: Mapping[str, Any], vocabulary_size: int
) -> TokenizerDescription:
    """``vocabulary_size`` is the number of rows of the token embedding: llama.cpp wants exactly
    as many tokens, so ids without a token become unused ones. ``config`` is config.json, which
    names special tokens that the tokenizer files do not. Never raises for bad files.
    """
    if not 0 < vocabulary_size <= MAX_VOCABULARY:
        raise ValueError(f"vocabulary_size is {vocabulary_size}, not 1..{MAX_VOCABULARY}")
    work = _Work(files, vocabulary_size)
    try:
        work.choose()
    except (ValueError, sentencepiece_model.MalformedModel) as error:
        work.error(
            "TOKENIZER_MALFORMED",
            f"the tokenizer files cannot be read: {error}",
            "restore the tokenizer files from where the checkpoint came from",
        )
    if work.vocabulary is not None:
        work.check(work.vocabulary, config)
        work.metadata += special_token_metadata(files, config, work.vocabulary, work)
        work.metadata += chat_template_metadata(files)
    return TokenizerDescription(metadata=tuple(work.metadata), findings=tuple(work.findings))


class _Work(Report):
    """The description in the making."""

    def __init__(self, files: TokenizerFiles, size: int) -> None:
        super().__init__()
        self.files = files
        self.json: Mapping[str, Any] = files.tokenizer_json or {}
        self.model: Mapping[str, Any] = mapping(self.json.get("model"))
        self.size = size
        self.vocabulary: Vocabulary | None = None
        self.metadata: list[MetadataEntry] = []

    def choose(self) -> None:
        """Byte-level tokenizer.json, else tokenizer.model, else a SentencePiece tokenizer.json."""
        if _is_byte_level(self.json):
            self.byte_level()
        elif self.files.sentencepiece is not None:
            self.sentencepiece(self.files.sentencepiece)
        elif self.files.tokenizer_json is None:
            self.error(
                "TOKENIZER_MISSING",
                "the checkpoint holds neither tokenizer.json nor tokenizer.model",
                "add the tokenizer files of the model: a GGUF file does not run without them",
                "not_found",
            )
        elif self.model.get("type") == "BPE" and self.model.get("byte_fallback") is True:
            self.from_merges()
        else:
            self.error(
                "TOKENIZER_MODEL_UNSUPPORTED",
                f"tokenizer.json holds a {quoted(self.model.get('type'))} model that is neither "
                f"byte-level BPE nor SentencePiece BPE with byte fallback",
                "add the model's tokenizer.model if it has one; else choose another method",
            )

    def byte_level(self) -> None:
        for key in ("continuing_subword_prefix", "end_of_word_suffix"):
            if self.model.get(key):
                self.error(
                    "TOKENIZER_MODEL_UNSUPPORTED",
                    f"the BPE model has a {key}; llama.cpp has none",
                    "choose another method",
                )
        pre = pre_tokenizers.name_of(self.json)
        if pre is None:
            self._unknown_pre_tokenizer()
            return
        self.vocabulary = vocabulary.byte_level(self.model, self.added(), self.size)
        self.metadata += [
            string("tokenizer.ggml.model", "gpt2"),
            string("tokenizer.ggml.pre", pre),
            array("tokenizer.ggml.tokens", "string", self.vocabulary.tokens),
            array("tokenizer.ggml.token_type", "int32", self.vocabulary.types),
            array("tokenizer.ggml.merges", "string", self.vocabulary.merges),
        ]

    def sentencepiece(self, raw: bytes) -> None:
        model = sentencepiece_model.parse(raw)
        if model.model_type != sentencepiece_model.BPE:
            kind = sentencepiece_model.MODEL_TYPES.get(model.model_type, str(model.model_type))
            self.error(
                "TOKENIZER_MODEL_UNSUPPORTED",
                f"tokenizer.model is a SentencePiece {kind} model; llama.cpp has bpe",
                "choose another method",
            )
            return
        if model.has_normalization_rules or model.remove_extra_whitespaces:
            self.warn(
                "TOKENIZER_NORMALIZATION_IGNORED",
                "tokenizer.model normalizes text; llama.cpp does not, so text that is not "
                "normalized gets other tokens",
                "normalize prompts before they reach llama.cpp",
            )
        self.vocabulary = vocabulary.sentencepiece(model, self.added(), self.size)
        self._sentencepiece_metadata(
            space_prefix=self._space_prefix(of_model=model.add_dummy_prefix)
        )

    def from_merges(self) -> None:
        prefix = self._space_prefix(of_model=None)
        if prefix is None:
            self._unknown_pre_tokenizer()
            return
        unlisted = vocabulary.merges_without_score(self.model, self.added())
        if unlisted:
            self.warn(
                "TOKENIZER_MERGES_APPROXIMATED",
                f"{unlisted} tokens of tokenizer.json cannot be ordered by one score each, as "
                f"llama.cpp does; rare words may get other tokens",
                "add the model's tokenizer.model, or compare tokenizations before use",
            )
        unknown = self.model.get("unk_token") or self.files.tokenizer_config.get("unk_token")
        self.vocabulary = vocabulary.from_merges(
            self.model, self.added(), self.size, token_text(unknown)
        )
        self._sentencepiece_metadata(space_prefix=prefix)

    def _space_prefix(self, *, of_model: bool | None) -> bool | None:
        """add_space_prefix: by tokenizer.json if it is clear, else by its model."""
        if self.files.tokenizer_json is None:
            own = self.files.tokenizer_config.get("add_prefix_space")
            return own if isinstance(own, bool) else of_model
        normalizer = pre_tokenizers.form(self.json.get("normalizer"))
        splitter = pre_tokenizers.form(self.json.get("pre_tokenizer"))
        if any(step == ("metaspace", SPACE, "first") for step in splitter):
            self.note(
                "TOKENIZER_SPACE_PREFIX_DIFFERS",
                "llama.cpp puts a space before text that follows a special token; the tokenizer "
                "of this model does so at the beginning of a text only",
                "nothing to do; compare tokenizations if a prompt template is sensitive to it",
            )
        return SPACE_PREFIX_FORMS.get((normalizer, splitter), of_model)

    def _sentencepiece_metadata(self, *, space_prefix: bool | None) -> None:
        assert self.vocabulary is not None
        self.metadata += [
            string("tokenizer.ggml.model", "llama"),
            string("tokenizer.ggml.pre", "default"),
            array("tokenizer.ggml.tokens", "string", self.vocabulary.tokens),
            array("tokenizer.ggml.scores", "float32", self.vocabulary.scores),
            array("tokenizer.ggml.token_type", "int32", self.vocabulary.types),
            boolean("tokenizer.ggml.add_space_prefix", value=space_prefix is not False),
        ]
        missing = vocabulary.missing_byte_tokens(self.vocabulary)
        if missing:
            self.error(
                "TOKENIZER_BYTE_TOKENS_MISSING",
                f"{missing} of the 256 byte tokens <0x00>..<0xFF> are missing; llama.cpp aborts "
                f"on text that needs one",
                "choose another method",
            )

    def _unknown_pre_tokenizer(self) -> None:
        seen = {
            "normalizer": pre_tokenizers.form(self.json.get("normalizer")),
            "pre_tokenizer": pre_tokenizers.form(self.json.get("pre_tokenizer")),
            "ignore_merges": self.model.get("ignore_merges", False),
        }
        text = repr(seen)
        shown = text if len(text) <= MAX_QUOTED_FORM else text[:MAX_QUOTED_FORM] + "..."
        known = ", ".join(rule.name for rule in pre_tokenizers.RULES)
        self.error(
            "TOKENIZER_PRETOKENIZER_UNKNOWN",
            f"llama.cpp has no pre-tokenizer known to split text like tokenizer.json: {shown}; "
            f"known: {known}",
            "convert the model to an unquantized .gguf with llama.cpp and quantize that file",
        )

    def added(self) -> list[AddedToken]:
        """Added tokens of tokenizer_config.json, then of tokenizer.json, which wins."""
        result: dict[int, AddedToken] = {}
        decoder = self.files.tokenizer_config.get("added_tokens_decoder")
        for key, entry in mapping(decoder).items():
            if isinstance(key, str) and key.isdecimal():
                self._collect(result, int(key), entry)
        listed = self.json.get("added_tokens")
        for entry in listed if isinstance(listed, list) else []:
            self._collect(result, mapping(entry).get("id"), entry)
        return list(result.values())

    def _collect(self, result: dict[int, AddedToken], token_id: object, entry: object) -> None:
        content = mapping(entry).get("content")
        if type(token_id) is not int or not isinstance(content, str):
            raise ValueError(f"the added token {quoted(entry)} has no id or no content")
        special = mapping(entry).get("special") is True
        strips = any(mapping(entry).get(side) is True for side in ("lstrip", "rstrip"))
        result[token_id] = AddedToken(id=token_id, content=content, special=special, strips=strips)

    def check(self, table: Vocabulary, config: Mapping[str, Any]) -> None:
        stripping = [token.content for token in self.added() if token.strips]
        if stripping and not _is_named_phi3(config):
            self.warn(
                "TOKENIZER_STRIPPING_IGNORED",
                f"{len(stripping)} added tokens, e.g. {quoted(stripping[0])}, swallow the spaces "
                f"beside them; llama.cpp keeps these spaces",
                "write prompts without spaces beside special tokens",
            )
        if table.out_of_range:
            self.warn(
                "TOKENIZER_TOKENS_WITHOUT_ROW",
                f"{len(table.out_of_range)} tokens, e.g. {quoted(table.out_of_range[0])}, have "
                f"ids beyond the {self.size} rows of the token embedding and are left out",
                "check that the tokenizer belongs to this model",
            )
        if duplicates := table.duplicates():
            self.error(
                "TOKENIZER_DUPLICATE_TOKENS",
                f"{len(duplicates)} token texts appear twice, e.g. {quoted(duplicates[0])}; "
                f"llama.cpp aborts on them",
                "restore the tokenizer files from where the checkpoint came from",
            )


def _is_byte_level(tokenizer_json: Mapping[str, Any]) -> bool:
    if mapping(tokenizer_json.get("model")).get("type") != "BPE":
        return False
    steps = pre_tokenizers.form(tokenizer_json.get("pre_tokenizer"))
    return any(step[0] == "byte_level" for step in steps)


def _is_named_phi3(config: Mapping[str, Any]) -> bool:
    """llama.cpp knows the stripping tokens of the models with this in their name."""
    name = str(config.get("_name_or_path", "")).lower()
    return "phi-3" in name or "phi3" in name
