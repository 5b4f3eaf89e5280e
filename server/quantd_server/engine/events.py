"""What a worker says while it runs: one JSON object a line, tagged with its type.

The names and shapes are those of `JobEvent` in the spec, so that the edge can translate them
without knowing them one by one.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from quantd_server.calibration.config import CalibrationUsage
from quantd_server.errors import Finding

Stage = Literal["PREPARING", "CALIBRATING", "QUANTIZING", "FINALIZING", "EVALUATING"]


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job is. Bytes are source bytes, times are in seconds."""

    stage: Stage | None = None
    tensors_done: int = 0
    tensors_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    bytes_per_second: float = 0.0
    remaining: float | None = None
    blocks_done: int = 0
    blocks_total: int = 0
    fraction: float = 0.0


class StageEvent(msgspec.Struct, frozen=True, kw_only=True, tag="stage"):
    """The worker entered a stage."""

    stage: Stage


class TensorEvent(msgspec.Struct, frozen=True, kw_only=True, tag="tensor"):
    """A tensor is quantized and written."""

    name: str
    shape: tuple[int, ...]
    source_type: str
    target_type: str
    size_bytes: int
    relative_error: float | None
    progress: Progress
    output_error: float | None = None
    rounding_output_error: float | None = None
    block_output_error: float | None = None
    untuned_block_output_error: float | None = None


class WarningEvent(msgspec.Struct, frozen=True, kw_only=True, tag="warning"):
    """Something to know that does not stop the job."""

    warning: Finding


class ProgressEvent(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """Progress inside a long tensor or a file; not part of the job's log."""

    progress: Progress


class OutputFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the result."""

    name: str
    size_bytes: int
    sha256: str


class TypeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What one target type contributes to the output."""

    target_type: str
    tensor_count: int
    element_count: int
    size_bytes: int


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What an evaluation measured; see the spec."""

    source_perplexity: float
    perplexity: float
    kl_divergence: float
    top_token_agreement: float
    tokens: int


class QuantizationResult(msgspec.Struct, frozen=True, kw_only=True, tag="result"):
    """What a job made; the last thing a successful worker says. Times are in seconds."""

    output_uri: str
    files: tuple[OutputFile, ...]
    types: tuple[TypeSummary, ...]
    source_bytes: int
    output_bytes: int
    bits_per_weight: float
    relative_error: float
    worst_tensor: str
    worst_relative_error: float
    elapsed: float
    peak_memory_bytes: int
    calibration: CalibrationUsage | None = None
    evaluation: Evaluation | None = None


class FailureEvent(msgspec.Struct, frozen=True, kw_only=True, tag="failure"):
    """The last thing a worker says that did not succeed."""

    finding: Finding


WorkerEvent = (
    StageEvent | TensorEvent | WarningEvent | ProgressEvent | QuantizationResult | FailureEvent
)
