"""What stands against an output, said before anything is done."""

from __future__ import annotations

from typing import Any

from tests.conformance.definitions.writing import (
    INVALID,
    NF4,
    PLAN,
    PRECONDITION,
    QUANTIZE,
    answered,
    finding,
    gguf,
    refused,
    some,
    spec,
    vector,
)
from tests.conformance.vector import Vector

FIELD = "spec.output_uri"


def refused_output(
    name: str, code: str, reason: str, output: str, method: dict[str, Any], source: str = "tiny"
) -> Vector:
    """Planning says what is wrong, and quantizing fails of it. ``output`` is a whole path."""
    asked = {"spec": {**spec(source, method), "outputUri": output}}
    return vector(
        f"output/{name}",
        answered(
            PLAN,
            asked,
            {"executable": False, "findings": some(finding("ERROR", reason, FIELD))},
            unsteady=reason == "DISK_TOO_SMALL",
        ),
        refused(QUANTIZE, asked, code, reason, FIELD),
    )


VECTORS: list[Vector] = [
    refused_output("form", INVALID, "OUTPUT_FORM", "${outputs}/out", gguf()),
    refused_output("form-of-folders", INVALID, "OUTPUT_FORM", "${outputs}/out.gguf", NF4),
    refused_output("inside-source", INVALID, "OUTPUT_INSIDE_SOURCE", "${sources}/tiny/out", NF4),
    refused_output(
        "name-too-long", INVALID, "OUTPUT_NAME_TOO_LONG", "${outputs}/" + "n" * 300, NF4
    ),
    refused_output("not-empty", PRECONDITION, "OUTPUT_NOT_EMPTY", "${outputs}/taken.gguf", gguf()),
    refused_output(
        "below-a-file", PRECONDITION, "OUTPUT_NOT_WRITABLE", "${outputs}/taken.gguf/out", NF4
    ),
    refused_output("outside-roots", INVALID, "PATH_OUTSIDE_ROOTS", "/etc/out", NF4),
    refused_output("uri-unsupported", INVALID, "URI_UNSUPPORTED", "hf:owner/name", NF4),
    refused_output(
        "disk-too-small", PRECONDITION, "DISK_TOO_SMALL", "${outputs}/out", NF4, "large"
    ),
]
