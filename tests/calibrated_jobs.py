"""Jobs of GPTQ, AWQ and AQLM on tiny random models, in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tests import quantizing
from tests.calibration import families
from transformers.utils import logging

from quantd_server.calibration.config import (
    CalibrationConfig,
    CalibrationTokens,
    EvaluationConfig,
    TokenSequence,
)
from quantd_server.engine.events import (
    QuantizationResult,
    TensorEvent,
    WarningEvent,
    WorkerEvent,
)
from quantd_server.planning.report import PlanReport

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "head_dim": 16,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 96,
    "tie_word_embeddings": False,
}
"""Multiples of 32 throughout, as the packed formats need them."""

CONFIGS: dict[str, dict[str, Any]] = {
    "gptq": {"group_size": 32},
    "awq": {"group_size": 32},
    "aqlm": {"num_codebooks": 2, "nbits_per_codebook": 4, "finetune_max_epochs": 0},
}
"""A configuration of each method that fits those sizes."""

FAMILIES = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "qwen2_moe",
    "qwen3_moe",
    "mixtral",
    "gemma2",
    "gemma3_text",
    "phi3",
)

EVALUATED = [sequence.tolist() for sequence in families.sequences(4, seed=9)]


def token_data(count: int, length: int = 48, seed: int = 1) -> CalibrationTokens:
    return given(sequence.tolist() for sequence in families.sequences(count, length, seed))


def given(sequences) -> CalibrationTokens:
    return CalibrationTokens(sequences=tuple(TokenSequence(ids=tuple(ids)) for ids in sequences))


CALIBRATION = CalibrationConfig(tokens=token_data(16))
EVALUATION = EvaluationConfig(tokens=given(EVALUATED))


def source(
    family: str, folder: Path, *, dtype: torch.dtype = torch.bfloat16, **changes: Any
) -> Path:
    """A random checkpoint of a family."""
    logging.disable_progress_bar()
    with contextlib.redirect_stdout(None):
        model = families.make(family, folder, **(SIZES | changes))
        model.to(dtype).save_pretrained(folder)
    return folder


def module_of(name: str) -> str:
    """The module of the main part of a quantized weight."""
    return name.removesuffix(".qweight").removesuffix(".codes").removesuffix(".weight")


class Job:
    """A job that has run: its plan, what it said and what it wrote."""

    def __init__(self, report: PlanReport, events: list[WorkerEvent], output: Path) -> None:
        self.report = report
        self.events = events
        self.output = output

    @property
    def result(self) -> QuantizationResult:
        result = self.events[-1]
        assert isinstance(result, QuantizationResult)
        return result

    @property
    def linears(self) -> dict[str, TensorEvent]:
        """The events of the linears that were solved, by module."""
        return {
            module_of(event.name): event
            for event in self.events
            if isinstance(event, TensorEvent) and event.output_error is not None
        }

    @property
    def warnings(self) -> dict[str, str]:
        """Reason by the subject of each warning."""
        return {
            subject: event.warning.reason
            for event in self.events
            if isinstance(event, WarningEvent)
            for subject in event.warning.subjects
        }

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.output.iterdir()}


def run(
    checkpoint: Path,
    output: Path,
    method: str,
    config: Mapping[str, Any],
    *,
    threads: int = 1,
    **options: Any,
) -> Job:
    """Plans and runs a job with the data above, unless ``options`` has other data."""
    options = {"calibration": CALIBRATION, "evaluation": EVALUATION} | options
    report = quantizing.planned(
        quantizing.specification(checkpoint, output, method, config, **options)
    )
    events = quantizing.run(quantizing.work_order(report, threads=threads))
    return Job(report, events, output)
