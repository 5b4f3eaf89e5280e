"""What planning finds about the data of a calibration or of an evaluation."""

from __future__ import annotations

from typing import Any

from tests.conformance.definitions.plans import found
from tests.conformance.definitions.writing import TOKENS, finding, gguf, gptq, tokens, vector
from tests.conformance.vector import Vector

TEXT = "the other one is there. " * 200
FEW = {"numSamples": 4, "sequenceLength": 64}
ENOUGH = {"texts": {"texts": [TEXT]}, **FEW}


def file(name: str, **members: Any) -> dict[str, Any]:
    """Data in a file."""
    return {"file": {"uri": f"${{sources}}/{name}"}, **members}


def calibrated(
    name: str,
    severity: str,
    reason: str,
    field: str,
    calibration: dict[str, Any],
    source: str = "tiny",
    **members: Any,
) -> Vector:
    """A plan of GPTQ that says this about its data."""
    said = finding(severity, reason, field)
    return vector(f"data/{name}", found(source, gptq(), said, calibration=calibration, **members))


DATA = "spec.calibration"
URI = f"{DATA}.file.uri"

VECTORS: list[Vector] = [
    calibrated("builtin-used", "INFO", "BUILTIN_TEXT_USED", DATA, {}),
    vector(
        "data/calibration-ignored",
        found("tiny", gguf(), finding("INFO", "CALIBRATION_IGNORED", DATA), calibration=ENOUGH),
    ),
    vector(
        "data/evaluation-ignored",
        found(
            "tiny",
            gguf(),
            finding("INFO", "EVALUATION_IGNORED", "spec.evaluation"),
            evaluation={"numSamples": 1},
        ),
    ),
    calibrated(
        "template-missing",
        "ERROR",
        "CHAT_TEMPLATE_MISSING",
        f"{DATA}.apply_chat_template",
        {**ENOUGH, "applyChatTemplate": True},
    ),
    calibrated(
        "template-fails",
        "ERROR",
        "CHAT_TEMPLATE_FAILED",
        f"{DATA}.apply_chat_template",
        {**ENOUGH, "applyChatTemplate": True},
        "template-fails",
    ),
    calibrated(
        "evaluation-on-calibration",
        "WARNING",
        "EVALUATION_ON_CALIBRATION_TEXT",
        "spec.evaluation.file.uri",
        file("texts.txt", **FEW),
        evaluation=file("texts.txt", numSamples=2, sequenceLength=64),
    ),
    calibrated(
        "field-invalid",
        "ERROR",
        "JSON_FIELD_INVALID",
        f"{DATA}.file.json_field",
        file("fieldless.jsonl"),
    ),
    calibrated("line-invalid", "ERROR", "JSON_LINE_INVALID", URI, file("broken.jsonl")),
    calibrated(
        "no-samples", "ERROR", "NO_SAMPLES", DATA, {**ENOUGH, "texts": {"texts": ["short"]}}
    ),
    calibrated(
        "sequence-too-long",
        "ERROR",
        "SEQUENCE_TOO_LONG",
        f"{DATA}.sequence_length",
        {**ENOUGH, "sequenceLength": 129},
    ),
    calibrated(
        "tokens-too-long",
        "ERROR",
        "SEQUENCE_TOO_LONG",
        f"{DATA}.tokens",
        tokens([1] * 129),
    ),
    calibrated(
        "short-texts-dropped",
        "INFO",
        "SHORT_TEXTS_DROPPED",
        f"{DATA}.packing",
        {
            "texts": {"texts": [TEXT] * 3 + ["short"]},
            "numSamples": 3,
            "sequenceLength": 64,
            "packing": "PACKING_POLICY_TRUNCATE",
        },
    ),
    calibrated("file-format", "ERROR", "TEXT_FILE_FORMAT", URI, file("texts.csv")),
    calibrated("file-unreadable", "ERROR", "TEXT_FILE_UNREADABLE", URI, file("folder.txt")),
    calibrated("not-utf8", "ERROR", "TEXT_NOT_UTF8", URI, file("latin.txt")),
    calibrated("file-absent", "ERROR", "SOURCE_NOT_FOUND", URI, file("absent.txt")),
    calibrated("read-in-parts", "INFO", "TEXT_READ_IN_PARTS", URI, file("large.txt", **FEW)),
    calibrated(
        "token-beyond-vocabulary",
        "ERROR",
        "TOKEN_BEYOND_VOCABULARY",
        f"{DATA}.tokens",
        tokens([5], [272]),
    ),
    calibrated(
        "tokenizer-of-another-model",
        "ERROR",
        "TOKEN_BEYOND_VOCABULARY",
        "spec.source_uri",
        ENOUGH,
        "few-rows",
    ),
    calibrated(
        "too-few-samples",
        "WARNING",
        "TOO_FEW_SAMPLES",
        f"{DATA}.num_samples",
        {**ENOUGH, "numSamples": 4000},
    ),
    calibrated(
        "too-many-tokens",
        "ERROR",
        "TOO_MANY_TOKENS",
        f"{DATA}.num_samples",
        {**ENOUGH, "numSamples": 65536, "sequenceLength": 4096},
        "long-context",
    ),
    calibrated(
        "tokenizer-missing", "ERROR", "TOKENIZER_MISSING", "spec.source_uri", ENOUGH, "no-tokenizer"
    ),
    calibrated(
        "tokenizer-malformed",
        "ERROR",
        "TOKENIZER_MALFORMED",
        "spec.source_uri",
        ENOUGH,
        "tokenizer-malformed",
    ),
    vector(
        "data/tokens-need-no-tokenizer",
        found("no-tokenizer", gptq(), calibration=TOKENS),
    ),
]
