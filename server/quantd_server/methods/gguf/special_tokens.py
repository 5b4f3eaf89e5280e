"""Special tokens and chat templates: what a GGUF file says around its token table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantd_server.errors import quoted
from quantd_server.methods.gguf.description import MetadataEntry, array, boolean, string, uint32
from quantd_server.methods.gguf.report import Report
from quantd_server.methods.gguf.tokenizer_files import TokenizerFiles, mapping
from quantd_server.methods.gguf.vocabulary import Vocabulary

SPECIAL_TOKENS = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",
    "pad": "padding_token_id",
    "mask": "mask_token_id",
}
"""Names in tokenizer_config.json to GGUF keys (``seperator`` is how GGUF spells it)."""


def special_token_metadata(
    files: TokenizerFiles, config: Mapping[str, Any], table: Vocabulary, report: Report
) -> list[MetadataEntry]:
    """Ids of the special tokens, and whether bos and eos are added to each text.

    tokenizer_config.json goes before config.json for the ids, and before the template of
    tokenizer.json for what is added.
    """
    own = files.tokenizer_config
    ids: dict[str, int] = {}
    for name in SPECIAL_TOKENS:
        token_id = table.ids.get(token_text(own.get(f"{name}_token")))
        if token_id is None:
            token_id = _first_id(config.get(f"{name}_token_id"))
        if token_id is not None and 0 <= token_id < len(table.tokens):
            ids[name] = token_id
    metadata = [
        uint32(f"tokenizer.ggml.{key}", ids[name])
        for name, key in SPECIAL_TOKENS.items()
        if name in ids
    ]
    adds = _adds_special(files, table, ids, report)
    for name in ("bos", "eos"):
        explicit = own.get(f"add_{name}_token")
        value = explicit if isinstance(explicit, bool) else adds.get(name)
        if value is True and name not in ids:
            report.error(
                "TOKENIZER_SPECIAL_TOKEN_MISSING",
                f"the tokenizer adds a {name} token to each text but names none",
                f"name {name}_token in tokenizer_config.json",
            )
        if value is not None:
            metadata.append(boolean(f"tokenizer.ggml.add_{name}_token", value=value))
    return metadata


def _adds_special(
    files: TokenizerFiles, table: Vocabulary, ids: dict[str, int], report: Report
) -> dict[str, bool]:
    """Whether tokenizer.json puts bos before and eos behind a text; empty without that file."""
    if files.tokenizer_json is None:
        return {}
    template = _template(files.tokenizer_json.get("post_processor"))
    adds = {"bos": False, "eos": False}
    if not template:
        return adds
    for name, position in (("bos", 0), ("eos", -1)):
        added = mapping(mapping(template[position]).get("SpecialToken")).get("id")
        if not isinstance(added, str):
            continue
        if table.ids.get(added) == ids.get(name):
            adds[name] = True
        elif len(template) > 1:
            report.warn(
                "TOKENIZER_TEMPLATE_UNKNOWN",
                f"tokenizer.json adds {quoted(added)} to each text, which is not its {name} "
                f"token; llama.cpp will not add it",
                "write the token into the prompt where the model needs it",
            )
    return adds


def chat_template_metadata(files: TokenizerFiles) -> list[MetadataEntry]:
    """The chat template, or several by name with one of them the default."""
    given: object = files.chat_template
    if given is None:
        given = files.tokenizer_config.get("chat_template")
    templates: dict[str, str] = {}
    if isinstance(given, str):
        templates["default"] = given
    elif isinstance(given, list):
        for entry in given:
            name, text = mapping(entry).get("name"), mapping(entry).get("template")
            if isinstance(name, str) and isinstance(text, str):
                templates["".join(c if c.isalnum() else "_" for c in name)] = text
    names = sorted(name for name in templates if name != "default")
    metadata = [string(f"tokenizer.chat_template.{name}", templates[name]) for name in names]
    if names:
        metadata.append(array("tokenizer.chat_templates", "string", names))
    if templates.get("default"):
        metadata.append(string("tokenizer.chat_template", templates["default"]))
    return metadata


def token_text(entry: object) -> str:
    """A special token in tokenizer_config.json is a string or an object with its content."""
    text = entry if isinstance(entry, str) else mapping(entry).get("content")
    return text if isinstance(text, str) else ""


def _first_id(entry: object) -> int | None:
    """A token id in config.json is a number or, for eos, a list of numbers."""
    value = entry[0] if isinstance(entry, list) and entry else entry
    return value if type(value) is int else None


def _template(post_processor: object) -> list[Any]:
    """The pieces around a single text in a TemplateProcessing, alone or in a sequence."""
    processor = mapping(post_processor)
    members = processor.get("processors")
    for member in members if isinstance(members, list) else [processor]:
        single = mapping(member).get("single")
        if mapping(member).get("type") == "TemplateProcessing" and isinstance(single, list):
            return single
    return []
