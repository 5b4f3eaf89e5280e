"""Which of llama.cpp's built-in pre-tokenizers does what a tokenizer.json asks for.

llama.cpp cannot read a pre-tokenizer from the file: it has a fixed set of splitting rules under
names (``llm_tokenizer_bpe`` in src/llama-vocab.cpp). The pre-tokenizer of tokenizer.json is
brought to a canonical form, a tuple of steps, and looked up among the forms that have the same
effect as one of these names. An unknown form is refused: a wrong name silently degrades a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Step = tuple[object, ...]
Form = tuple[Step, ...]

BYTE_LEVEL: Step = ("byte_level", "no_regex")
GPT2: Step = ("byte_level", "regex")
"""The byte-level step with the word pattern of GPT-2 built in."""
DIGITS: Step = ("digits", "individual")
DIGIT_RUNS: Step = ("digits", "runs")

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
REST_WITH_SLASH = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
UPPER_THEN_LOWER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
UPPER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"

LLAMA3 = rf"{CONTRACTIONS}|{WORD}|\p{{N}}{{1,3}}{REST}"
QWEN2 = rf"{CONTRACTIONS}|{WORD}|\p{{N}}{REST}"
QWEN35 = (
    rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = rf"{UPPER_THEN_LOWER}|{UPPER}|\p{{N}}{REST_WITH_SLASH}"
GPT4O = rf"{UPPER_THEN_LOWER}{CONTRACTIONS}?|{UPPER}{CONTRACTIONS}?|\p{{N}}{{1,3}}{REST_WITH_SLASH}"
MINICPM5 = rf"{CONTRACTIONS}|{WORD}|\p{{N}}+{REST}"
CJK_AND_HANGUL = "[一-龥ࠀ-一가-퟿]+"
DEEPSEEK_V3_WORDS = (
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?"
    "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
)


def _split(pattern: str) -> Step:
    return ("split", pattern)


class Rule:
    """One entry: the canonical form, and whether whole words may skip the merges."""

    def __init__(self, name: str, *form: Step, ignore_merges: bool = False) -> None:
        self.name = name
        self.form: Form = form
        self.ignore_merges = ignore_merges


RULES = (
    Rule("gpt-2", GPT2),
    Rule("smollm", DIGITS, GPT2),
    Rule("llama-bpe", _split(LLAMA3), BYTE_LEVEL, ignore_merges=True),
    Rule("smaug-bpe", _split(LLAMA3), BYTE_LEVEL),
    Rule("qwen2", _split(QWEN2), BYTE_LEVEL),
    Rule("qwen35", _split(QWEN35), BYTE_LEVEL),
    Rule("tekken", _split(TEKKEN), BYTE_LEVEL, ignore_merges=True),
    Rule("gpt-4o", _split(GPT4O), BYTE_LEVEL),
    Rule("minicpm5", _split(r"\p{N}{1,3}"), _split(MINICPM5), BYTE_LEVEL, ignore_merges=True),
    Rule(
        "deepseek-coder",
        _split(r"[\r\n]"),
        _split(r"\s?\p{L}+"),
        _split(r"\s?\p{P}+"),
        _split(CJK_AND_HANGUL),
        DIGITS,
        BYTE_LEVEL,
    ),
    Rule(
        "deepseek-v3",
        _split(r"\p{N}{1,3}"),
        _split("[一-龥぀-ゟ゠-ヿ]+"),
        _split(DEEPSEEK_V3_WORDS),
        BYTE_LEVEL,
    ),
)

_BY_FORM = {(rule.form, rule.ignore_merges): rule.name for rule in RULES}
_IGNORED_NORMALIZERS: frozenset[Form] = frozenset({(), (("nfc",),)})
"""llama.cpp does not normalize the text of byte-level tokenizers. NFC, which Qwen asks for,
changes only text that is not composed already; llama.cpp's own converter accepts it too."""


def name_of(tokenizer_json: Mapping[str, Any]) -> str | None:
    """llama.cpp's name for the pre-tokenizer of a byte-level BPE tokenizer; None if it has none."""
    if form(tokenizer_json.get("normalizer")) not in _IGNORED_NORMALIZERS:
        return None
    model = tokenizer_json.get("model")
    ignore_merges = isinstance(model, Mapping) and model.get("ignore_merges") is True
    return _BY_FORM.get((form(tokenizer_json.get("pre_tokenizer")), ignore_merges))


def form(component: object) -> Form:
    """The canonical form of a normalizer or pre-tokenizer of tokenizer.json."""
    if component is None:
        return ()
    if not isinstance(component, Mapping):
        return (("unreadable",),)
    kind = component.get("type")
    if kind == "Sequence":
        members = component.get("pretokenizers", component.get("normalizers"))
        if not isinstance(members, list):
            return (("unreadable",),)
        return tuple(step for member in members for step in form(member))
    return (_step(kind, component),)


def _step(kind: object, component: Mapping[str, Any]) -> Step:
    match kind:
        case "ByteLevel":
            regex = "regex" if component.get("use_regex", True) else "no_regex"
            prefix = ("add_prefix_space",) if component.get("add_prefix_space", True) else ()
            return ("byte_level", regex, *prefix)
        case "Digits":
            return DIGITS if component.get("individual_digits") else DIGIT_RUNS
        case "Split":
            return _split_step(component)
        case "Metaspace":
            scheme = component.get("prepend_scheme")
            if scheme is None:
                scheme = "always" if component.get("add_prefix_space", True) else "never"
            return ("metaspace", component.get("replacement"), scheme)
        case "NFC":
            return ("nfc",)
        case "Prepend":
            return ("prepend", component.get("prepend"))
        case "Replace":
            return ("replace", _pattern(component), component.get("content"))
        case _:
            return ("other", repr(kind))


def _split_step(component: Mapping[str, Any]) -> Step:
    pattern = _pattern(component)
    behavior, inverted = component.get("behavior"), component.get("invert", False)
    if behavior == "Isolated" and not inverted:
        return _split(pattern)
    return ("split", pattern, behavior, inverted)


def _pattern(component: Mapping[str, Any]) -> str:
    pattern = component.get("pattern")
    if isinstance(pattern, Mapping):
        if isinstance(regex := pattern.get("Regex"), str):
            # Some files hold the characters themselves, others their escapes.
            return regex.replace("\r", r"\r").replace("\n", r"\n")
        if isinstance(text := pattern.get("String"), str):
            return f"literal {text!r}"
    return "unreadable"
