"""Spec, checkpoint headers and host in; a plan and every finding out. No weight is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from quantd_server.calibration.config import CalibrationUsage
from quantd_server.checkpoint.opening import Checkpoint, open_checkpoint
from quantd_server.engine.calibrated_estimate import (
    calibrated_peak_bytes,
    checkpoint_bytes,
    evaluation_peak_bytes,
    spilled_bytes,
)
from quantd_server.engine.estimate import peak_memory_bytes
from quantd_server.engine.fingerprint import source_fingerprint
from quantd_server.engine.specification import DeviceKind, QuantizationSpec, work_options
from quantd_server.engine.summary import summarize_types
from quantd_server.errors import Finding, QuantdError, Severity
from quantd_server.host.description import Host
from quantd_server.methods.base import TensorTask, WorkOptions, WorkPlan
from quantd_server.methods.configs import MethodConfig
from quantd_server.methods.registry import ALL_METHODS
from quantd_server.planning.artifact import planned_artifact
from quantd_server.planning.calibration_rules import DataPlan, plan_data
from quantd_server.planning.capability_report import unmet_on_device, usable_devices
from quantd_server.planning.inspection import existing_quantization
from quantd_server.planning.output_rules import output_findings
from quantd_server.planning.report import Plan, PlanReport, TensorPlan
from quantd_server.planning.roots import Roots
from quantd_server.planning.serve_targets import target_findings

_WEIGHT = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}


def plan(
    spec: QuantizationSpec,
    roots: Roots,
    host: Host,
    *,
    offset: int,
    page_size: int,
    threads: int | None = None,
) -> PlanReport:
    """The plan of ``spec`` on ``host`` with the tasks [offset, offset + page_size) listed.

    ``threads`` is what the worker will have; by default one for each usable core.

    Raises QuantdError when the source is not there, not allowed, or damaged.
    """
    source = roots.source(spec.source_uri)
    checkpoint = open_checkpoint(source)
    method = ALL_METHODS[spec.method.name]
    config = method.resolve(spec.method.value)
    device, device_findings = _choose_device(spec, host)
    spec = msgspec.structs.replace(
        spec,
        method=MethodConfig.of(spec.method.name, config),
        max_shard_size=spec.max_shard_size or WorkOptions().max_shard_size,
        device=device,
    )
    data = plan_data(spec, checkpoint, roots, calibrated=method.calibrated)
    spec = data.spec
    findings = [*_source_findings(checkpoint), *device_findings, *data.findings]
    paths = dict(data.paths)
    for field, uri in method.file_uris(config).items():
        try:
            paths[uri] = str(roots.source(uri, field))
        except QuantdError as error:
            findings.append(error.finding)
    output_path = ""
    if spec.output_uri:
        try:
            output_path = str(roots.output(spec.output_uri))
        except QuantdError as error:
            findings.append(error.finding)
    work = None
    if not existing_quantization(checkpoint):
        work = method.prepare(config, checkpoint, work_options(spec, output_path, paths))
        findings += work.findings
        findings += target_findings(
            planned_artifact(spec.method, checkpoint, work), spec.serve_targets
        )
    if output_path:
        findings += output_findings(
            Path(output_path),
            source,
            single_file=method.single_file,
            needed_bytes=_scratch_bytes(work, data.usage) if work else 0,
        )
    findings.sort(key=lambda finding: _WEIGHT[finding.severity])
    return PlanReport(
        spec=spec,
        findings=tuple(findings),
        plan=_summary(spec, work, threads or host.cpu.usable_cores, data)
        if work and work.tasks
        else None,
        tensors=tuple(_tensor_plans(work.tasks[offset : offset + page_size])) if work else (),
        next_offset=_next_offset(work, offset, page_size),
        source_path=str(source),
        output_path=output_path,
        paths=paths,
        source_fingerprint=source_fingerprint(checkpoint),
    )


def _source_findings(checkpoint: Checkpoint) -> Iterator[Finding]:
    existing = existing_quantization(checkpoint)
    if existing:
        yield Finding(
            severity=Severity.ERROR,
            field="spec.source_uri",
            reason="SOURCE_ALREADY_QUANTIZED",
            message=f"the source is quantized already ({existing.quant_method})",
            remedy="name the original checkpoint, in float32, float16 or bfloat16",
            kind="precondition",
        )


def _choose_device(spec: QuantizationSpec, host: Host) -> tuple[DeviceKind, list[Finding]]:
    """The device a job would use: the one asked for, else the CPU, whose kernels need no copies."""
    usable = usable_devices(spec.method.name, host)
    if spec.device in (None, "CPU") or not usable:  # nothing runs a method that is only planned
        return "CPU", []
    if spec.device in usable:
        return spec.device, []
    why = next(unmet_on_device(spec.method.name, spec.device, host), None)
    message = f"{spec.method.name} cannot run on {spec.device} here"
    remedy = f"leave device out, or set it to {' or '.join(usable)}"
    return "CPU", [
        Finding(
            severity=Severity.ERROR,
            field="spec.device",
            reason="DEVICE_NOT_AVAILABLE",
            message=f"{message}: {why.message}" if why else message,
            remedy=f"{why.remedy}; or {remedy}" if why and why.remedy else remedy,
            kind="precondition",
        )
    ]


def _summary(spec: QuantizationSpec, work: WorkPlan, threads: int, data: DataPlan) -> Plan:
    kept = [task for task in work.tasks if task.action != "DROP"]
    elements = sum(task.element_count for task in work.tasks if task.source)
    output_bytes = sum(file.size for file in work.files)
    peak = peak_memory_bytes(work, threads, spec.device or "CPU")
    if data.usage is not None:
        peak = max(peak, calibrated_peak_bytes(work.tasks, data.usage, work.tuning_bytes))
    if data.evaluation_usage is not None:
        peak = max(peak, evaluation_peak_bytes(work.tasks, data.evaluation_usage))
    return Plan(
        method=spec.method,
        device=spec.device or "CPU",
        types=summarize_types(kept),
        parameter_count=elements,
        quantized_parameter_count=sum(
            task.element_count for task in kept if task.action in ("QUANTIZE", "FALLBACK")
        ),
        source_bytes=sum(task.source_bytes for task in work.tasks),
        output_bytes=output_bytes,
        bits_per_weight=8 * output_bytes / elements if elements else 0.0,
        peak_memory_bytes=peak,
        scratch_bytes=_scratch_bytes(work, data.usage),
        calibration=data.usage,
    )


def _scratch_bytes(work: WorkPlan, calibration: CalibrationUsage | None) -> int:
    """Disk that the job takes while it runs, its output included."""
    nbytes = sum(file.size for file in work.files)
    if calibration is not None:
        nbytes += spilled_bytes(work.tasks, calibration, work.tuning_bytes)
        nbytes += checkpoint_bytes(work.tasks, calibration)
    return nbytes


def _tensor_plans(tasks: Iterable[TensorTask]) -> Iterator[TensorPlan]:
    for task in tasks:
        yield TensorPlan(
            source_name=task.source.name if task.source else "",
            target_name=task.target_name,
            shape=task.shape,
            source_type=task.source.dtype if task.source else "",
            target_type=task.target_type,
            source_bytes=task.source_bytes,
            target_bytes=task.target_bytes,
            action=task.action,
            reason=task.reason,
        )


def _next_offset(work: WorkPlan | None, offset: int, page_size: int) -> int | None:
    end = offset + page_size
    return end if work and page_size and end < len(work.tasks) else None
