"""Builds `QuantizationSpec` from Python values."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TypedDict

from quantd import v1
from quantd._messages import fill

UNITS = {"": 1, "B": 1} | {
    prefix + suffix: base**power
    for power, prefix in enumerate("KMGT", start=1)
    for base, suffix in ((1000, "B"), (1024, "IB"))
}


class SpecOptions(TypedDict, total=False):
    """What `plan` and `quantize` take besides source, output and method."""

    calibration: v1.CalibrationConfig | None
    """Calibration data, for the methods that need it; see `calibration`."""
    evaluation: v1.EvaluationConfig | None
    """What to measure the result on, for the same methods; see `evaluation`. Default: nothing."""
    max_shard_size: int | str | None
    """Largest size of one safetensors file: bytes, or a text such as "2GB". Default 5 GB."""
    device: str | None
    """Device that computes: "cpu", "cuda", ... Default: the server chooses."""
    serve_targets: Iterable[str | v1.ServeTarget]
    """Where the result is meant to run: "transformers", "llama_cpp", "vllm", or with the compute
    capability of the card, "vllm:8.6"."""
    allow_non_finite: bool
    """Whether weights that are NaN or infinite are let through. Default False."""


def quantization_spec(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str] | None,
    method: v1.MethodConfig,
    *,
    calibration: v1.CalibrationConfig | None = None,
    evaluation: v1.EvaluationConfig | None = None,
    max_shard_size: int | str | None = None,
    device: str | None = None,
    serve_targets: Iterable[str | v1.ServeTarget] = (),
    allow_non_finite: bool = False,
) -> v1.QuantizationSpec:
    """The spec; see `SpecOptions`.

    Raises:
        TypeError: `method` is not a `MethodConfig`.
        ValueError: A name or a size is not understood.
    """
    if not isinstance(method, v1.MethodConfig):
        raise TypeError(
            f"method: got {type(method).__name__}, expected a MethodConfig such as "
            'quantd.gguf("Q4_K_M")'
        )
    spec = v1.QuantizationSpec(
        source_uri=os.fspath(source),
        output_uri="" if output is None else os.fspath(output),
        method=method,
        calibration=calibration,
        evaluation=evaluation,
        serve_targets=[serve_target(target) for target in serve_targets],
        allow_non_finite=allow_non_finite,
    )
    if max_shard_size is not None:
        spec.max_shard_size = size_in_bytes(max_shard_size, "max_shard_size")
    fill(spec, {"device": device})
    return spec


def serve_target(target: str | v1.ServeTarget) -> v1.ServeTarget:
    """A target from "engine" or "engine:compute capability".

    Raises:
        ValueError: There is no such engine.
    """
    if isinstance(target, v1.ServeTarget):
        return target
    engine, _, capability = target.partition(":")
    message = v1.ServeTarget(compute_capability=capability)
    fill(message, {"engine": engine.replace(".", "_")})
    return message


def size_in_bytes(size: int | str, field: str) -> int:
    """Bytes of a size such as "2GB" (decimal, as Hugging Face counts) or "2GiB".

    Raises:
        ValueError: The text is no size.
    """
    if isinstance(size, int):
        return size
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", size.strip())
    if match is None or match[2].upper() not in UNITS:
        raise ValueError(f'{field}: {size!r} is no size; write bytes, or "500MB", "2GB", "2GiB"')
    return round(float(match[1]) * UNITS[match[2].upper()])
