"""The answers of planning and inspection; field names are those of the spec."""

from __future__ import annotations

import msgspec

from quantd_server.calibration.config import CalibrationUsage
from quantd_server.engine.events import TypeSummary
from quantd_server.engine.specification import DeviceKind, Engine, QuantizationSpec
from quantd_server.errors import Finding, Severity
from quantd_server.methods.base import Action
from quantd_server.methods.configs import MethodConfig


class TensorPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to one tensor, and why."""

    source_name: str
    target_name: str
    shape: tuple[int, ...]
    source_type: str
    target_type: str
    source_bytes: int
    target_bytes: int
    action: Action
    reason: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a job would do. Times are in seconds."""

    method: MethodConfig
    device: DeviceKind
    types: tuple[TypeSummary, ...]
    parameter_count: int
    quantized_parameter_count: int
    source_bytes: int
    output_bytes: int
    bits_per_weight: float
    peak_memory_bytes: int
    scratch_bytes: int
    estimated_duration: float | None = None
    estimate_basis: str = ""
    calibration: CalibrationUsage | None = None


class PlanReport(msgspec.Struct, frozen=True, kw_only=True):
    """A plan and everything that stands against it."""

    spec: QuantizationSpec
    """The request with every default filled in."""
    findings: tuple[Finding, ...]
    """Errors first."""
    plan: Plan | None = None
    tensors: tuple[TensorPlan, ...] = ()
    """One page of them."""
    next_offset: int | None = None
    """Where the next page starts; None on the last one."""
    source_path: str = ""
    output_path: str = ""
    paths: dict[str, str] = {}
    source_fingerprint: str = ""

    @property
    def executable(self) -> bool:
        return not any(finding.severity is Severity.ERROR for finding in self.findings)


class DtypeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What one element type contributes to a checkpoint."""

    dtype: str
    tensor_count: int
    element_count: int
    size_bytes: int


class TensorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor as its header describes it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    file: str


class ExistingQuantization(msgspec.Struct, frozen=True, kw_only=True):
    """A quantization that a checkpoint already has."""

    quant_method: str
    method: MethodConfig | None = None
    config_json: str = ""


class CheckpointDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What the headers of a checkpoint say (`Checkpoint` in the spec)."""

    uri: str
    format: str
    model_type: str
    architecture: str
    parameter_count: int
    size_bytes: int
    file_count: int
    tensor_count: int
    dtypes: tuple[DtypeSummary, ...]
    tied_embeddings: bool
    block_count: int
    hidden_size: int
    context_length: int
    vocab_size: int
    head_count: int
    kv_head_count: int
    head_dim: int
    tokenizer: str | None
    quantization: ExistingQuantization | None = None


class LoadAssessment(msgspec.Struct, frozen=True, kw_only=True):
    """Whether one engine can load a checkpoint on one device of this host."""

    engine: Engine
    device: DeviceKind
    device_index: int
    loadable: bool
    weight_bytes: int
    kv_cache_bytes: int
    free_bytes: int
    findings: tuple[Finding, ...] = ()


class InspectionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a checkpoint."""

    checkpoint: CheckpointDescription
    findings: tuple[Finding, ...] = ()
    loads: tuple[LoadAssessment, ...] = ()
    tensors: tuple[TensorInfo, ...] = ()
    next_offset: int | None = None
