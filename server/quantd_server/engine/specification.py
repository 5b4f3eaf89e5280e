"""What a job is asked to do, after the edge has checked and translated the request."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from quantd_server.calibration.config import CalibrationConfig, EvaluationConfig
from quantd_server.methods.base import WorkOptions
from quantd_server.methods.configs import MethodConfig

DeviceKind = Literal["CPU", "CUDA", "ROCM", "XPU", "MPS"]
Engine = Literal["TRANSFORMERS", "VLLM", "SGLANG", "LLAMA_CPP"]


class ServeTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A program the result is meant to run in."""

    engine: Engine
    compute_capability: str = ""


class QuantizationSpec(msgspec.Struct, frozen=True, kw_only=True):
    """`QuantizationSpec` of the spec. URIs are as the caller wrote them; see ``planning.roots``."""

    source_uri: str
    output_uri: str = ""
    method: MethodConfig
    max_shard_size: int | None = None
    device: DeviceKind | None = None
    serve_targets: tuple[ServeTarget, ...] = ()
    allow_non_finite: bool = False
    calibration: CalibrationConfig | None = None
    evaluation: EvaluationConfig | None = None


def work_options(spec: QuantizationSpec, output_path: str, paths: dict[str, str]) -> WorkOptions:
    """The options that shape the work plan; ``output_path`` is empty when none was given."""
    options = WorkOptions(paths=paths)
    if spec.max_shard_size is not None:
        options = msgspec.structs.replace(options, max_shard_size=spec.max_shard_size)
    if output_path:
        options = msgspec.structs.replace(options, output_name=Path(output_path).name)
    return options


class WorkOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker process is told: the spec and the real paths it may touch."""

    job_id: str
    spec: QuantizationSpec
    source_path: str
    output_path: str
    paths: dict[str, str] = {}
    """As ``WorkOptions.paths``."""
    source_fingerprint: str
    """Digest of the source's headers when it was planned; see ``engine.fingerprint``."""
    calibration_sha256: str = ""
    """Of the token ids that were planned with; empty for a method that does not calibrate."""
    threads: int
    recoverable: bool = False
    """Whether another worker may go on where this one was ended, and whoever ordered the job can
    tell after a crash what became of it. Then the hidden folder holds the finished tensors and, in
    the end, the result, and has to be removed by the one who ordered the job."""
