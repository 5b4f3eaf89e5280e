"""Short ways to write down vectors. What comes out is plain JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.conformance.vector import Step, Vector

QUANTIZATION = "quantd.v1.QuantizationService"
JOBS = "quantd.v1.JobService"

CAPABILITIES = f"{QUANTIZATION}/GetCapabilities"
INSPECT = f"{QUANTIZATION}/InspectCheckpoint"
PARSE = f"{QUANTIZATION}/ParseConfig"
PLAN = f"{QUANTIZATION}/PlanQuantization"
QUANTIZE = f"{QUANTIZATION}/Quantize"
GET = f"{JOBS}/GetJob"
LIST = f"{JOBS}/ListJobs"
WATCH = f"{JOBS}/WatchJob"
CANCEL = f"{JOBS}/CancelJob"
DELETE = f"{JOBS}/DeleteJob"

ABSENT = {"$absent": True}
INVALID, PRECONDITION, NOT_FOUND = "INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND"


def vector(name: str, *steps: Step, server: str = "plain", **options: Any) -> Vector:
    """A vector of these steps."""
    return Vector(name=name, server=server, steps=list(steps), **options)


def call(rpc: str, request: dict[str, Any] | None = None, **members: Any) -> Step:
    """Makes a call and waits for its end."""
    return {"call": rpc, "request": request or {}, **members}


def answered(rpc: str, request: dict[str, Any], reply: Any, **members: Any) -> Step:
    """A call whose reply matches."""
    return call(rpc, request, expect={"reply": reply}, **members)


def refused(
    rpc: str,
    request: dict[str, Any],
    code: str,
    reason: str,
    *fields: str,
    retryable: bool = False,
    **members: Any,
) -> Step:
    """A call that fails; ``fields`` are those of violations with that reason."""
    error: dict[str, Any] = {"code": code, "reason": reason, "retryable": retryable}
    if fields:
        error["violations"] = some(*({"field": field, "reason": reason} for field in fields))
    return call(rpc, request, expect={"error": error}, **members)


def some(*items: Any) -> dict[str, Any]:
    """A list with these items, among others."""
    return {"$some": list(items)}


def finding(severity: str, reason: str, field: str | None = None, **members: Any) -> dict[str, Any]:
    """One finding."""
    found = {"severity": f"SEVERITY_{severity}", "reason": reason, **members}
    return found if field is None else {**found, "field": field}


def spec(source: str, method: dict[str, Any], output: str = "", **members: Any) -> dict[str, Any]:
    """A `QuantizationSpec`; ``source`` and ``output`` are names below the roots."""
    found: dict[str, Any] = {"sourceUri": f"${{sources}}/{source}", "method": method, **members}
    return {**found, "outputUri": f"${{outputs}}/{output}"} if output else found


def gguf(file_type: str = "Q8_0", **members: Any) -> dict[str, Any]:
    """A GGUF configuration."""
    return {"gguf": {"fileType": f"GGUF_FILE_TYPE_{file_type}", **members}}


NF4 = {"bitsandbytes4bit": {"bnb4bitQuantType": "FOUR_BIT_TYPE_NF4"}}
INT8: dict[str, Any] = {"bitsandbytes8bit": {}}


def gptq(**members: Any) -> dict[str, Any]:
    """A GPTQ configuration whose groups fit the tiny models."""
    return {"gptq": {"groupSize": 32, **members}}


def awq(**members: Any) -> dict[str, Any]:
    """An AWQ configuration whose groups fit the tiny models."""
    return {"awq": {"groupSize": 32, **members}}


def aqlm(**members: Any) -> dict[str, Any]:
    """An AQLM configuration whose codebooks fit the tiny models."""
    return {"aqlm": {"numCodebooks": 2, "nbitsPerCodebook": 4, **members}}


def tokens(*sequences: Sequence[int]) -> dict[str, Any]:
    """Calibration data."""
    return {"tokens": {"sequences": [{"ids": list(ids)} for ids in sequences]}}


TOKENS = tokens(*([place % 250 + 1 for place in range(first, first + 32)] for first in range(8)))
