"""Requests of all six methods, on sources that keep a worker busy for a while."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from pathlib import Path

from tests import tiny_models

import quantd
from quantd import v1

METHODS: dict[str, Callable[[], v1.MethodConfig]] = {
    "bitsandbytes_8bit": quantd.bitsandbytes_8bit,
    "bitsandbytes_4bit": lambda: quantd.bitsandbytes_4bit("nf4", bnb_4bit_use_double_quant=True),
    "gguf": lambda: quantd.gguf("IQ4_XS"),
    "gptq": lambda: quantd.gptq(group_size=32),
    "awq": lambda: quantd.awq(group_size=32),
    "aqlm": lambda: quantd.aqlm(num_codebooks=2, nbits_per_codebook=4),
}
CALIBRATED = ("gptq", "awq", "aqlm")

SAMPLES = 24
LENGTH = 96


def write_sources(folder: Path) -> None:
    """One for the methods that look at weights alone, and one for those that run the model."""
    tiny_models.write(folder / "plain", hidden=512, intermediate=2048, layers=4, heads=8)
    tiny_models.write(folder / "calibrated", hidden=128, intermediate=256, layers=6)


def output_of(folder: Path, name: str, method: str) -> Path:
    return folder / (f"{name}.gguf" if method == "gguf" else name)


def request(folder: Path, method: str, name: str = "output") -> v1.QuantizeRequest:
    """``folder`` has the sources and gets the output."""
    spec = v1.QuantizationSpec(
        source_uri=str(folder / ("calibrated" if method in CALIBRATED else "plain")),
        output_uri=str(output_of(folder, name, method)),
        method=METHODS[method](),
    )
    if method in CALIBRATED:
        spec.calibration.CopyFrom(v1.CalibrationConfig(tokens=tokens(1, SAMPLES)))
        spec.evaluation.CopyFrom(v1.EvaluationConfig(tokens=tokens(2, 4)))
    return v1.QuantizeRequest(spec=spec, request_id=str(uuid.uuid4()))


def tokens(seed: int, count: int) -> v1.CalibrationTokens:
    """Random ids."""
    draw = random.Random(seed)
    return v1.CalibrationTokens(
        sequences=[
            v1.TokenSequence(ids=[draw.randrange(tiny_models.VOCABULARY) for _ in range(LENGTH)])
            for _ in range(count)
        ]
    )
