"""GGUF as a `quantization_config`.

Hugging Face has no such form: a .gguf file describes itself, and ``GgufConfig`` of transformers
only names the file. Canonical JSON therefore is the fields of the spec under their names, beside
`"quant_method": "gguf"`. It never ends in a published config.json, so it may hold the URI of an
importance matrix, which the caller gave.
"""

from __future__ import annotations

from typing import Any

from quantd_server.methods.configs import GgufConfig, GgufTensorRule
from quantd_server.methods.gguf.file_types import FILE_TYPES
from quantd_server.methods.patterns import compile_pattern
from quantd_server.planning.capability_report import FILE_TYPES_OUTSIDE_THE_SPEC
from quantd_server.planning.config_parsing.rules import (
    Boolean,
    Choice,
    Text,
    ValueRefusedError,
    wrong_type,
)
from quantd_server.planning.config_parsing.table import (
    PROVENANCE,
    READER,
    Field,
    Ignored,
    MethodTable,
)

FILE_TYPE = Choice.of(*(name for name in FILE_TYPES if name not in FILE_TYPES_OUTSIDE_THE_SPEC))
TENSOR_TYPE = Choice.of(
    *("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "IQ3_S"),
    *("TQ1_0", "TQ2_0", "MXFP4"),
)
MAX_RULES = 256
_PATTERN = Text(256)


class TensorRules:
    """The rule for `tensor_types`."""

    allowed = f'a list of at most {MAX_RULES} objects {{"pattern": ..., "type": ...}}'

    def read(self, value: Any) -> tuple[GgufTensorRule, ...]:
        if not isinstance(value, list):
            raise wrong_type(value, self.allowed)
        if len(value) > MAX_RULES:
            raise ValueRefusedError(
                "CONFIG_VALUE_NOT_ALLOWED", f"a list of {len(value)}; allowed: {self.allowed}"
            )
        return tuple(_tensor_rule(item, f"[{index}]") for index, item in enumerate(value))

    def write(self, value: tuple[GgufTensorRule, ...]) -> list[dict[str, str]]:
        return [{"pattern": rule.pattern, "type": rule.type} for rule in value]


def _tensor_rule(item: Any, place: str) -> GgufTensorRule:
    if not isinstance(item, dict) or set(item) != {"pattern", "type"}:
        raise wrong_type(item, "an object with pattern and type, and nothing else", place)
    try:
        rule = GgufTensorRule(
            pattern=_PATTERN.read(item["pattern"]), type=TENSOR_TYPE.read(item["type"])
        )
        compile_pattern(rule.pattern)
    except ValueRefusedError as refusal:
        raise ValueRefusedError(refusal.reason, refusal.message, place) from None
    except ValueError as error:
        raise ValueRefusedError(
            "PATTERN_INVALID", f"no regular expression that RE2 understands ({error})", place
        ) from None
    return rule


TABLE = MethodTable(
    name="gguf",
    quant_method="gguf",
    config=GgufConfig,
    fields=(
        Field("file_type", FILE_TYPE),
        Field("output_tensor_type", TENSOR_TYPE),
        Field("token_embedding_type", TENSOR_TYPE),
        Field("tensor_types", TensorRules()),
        Field("pure", Boolean()),
        Field("imatrix_uri", Text(4096)),
    ),
    ignored=(
        Ignored(("gguf_file",), PROVENANCE, Text(4096)),
        Ignored(("dequantize",), READER, Boolean()),
    ),
)
