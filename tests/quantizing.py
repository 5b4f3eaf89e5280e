"""Plans and runs jobs in this process: the way from a request to a worker without gRPC."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests import hosts

from quantd_server.engine.events import QuantizationResult, WorkerEvent
from quantd_server.engine.run import JobRun
from quantd_server.engine.specification import QuantizationSpec, WorkOrder
from quantd_server.host.description import Host
from quantd_server.methods.configs import MethodConfig
from quantd_server.planning.planner import plan
from quantd_server.planning.report import PlanReport
from quantd_server.planning.roots import Roots

Stored = dict[str, tuple[str, tuple[int, ...], bytes]]
"""Tensors of a checkpoint by name: dtype, shape, bytes."""


def method_config(method: str, config: Mapping[str, Any] | None = None) -> MethodConfig:
    """The typed configuration of a method."""
    return msgspec.convert({method: dict(config or {})}, MethodConfig)


def specification(
    source: Path,
    output: Path | str,
    method: str,
    config: Mapping[str, Any] | None = None,
    **options: Any,
) -> QuantizationSpec:
    return QuantizationSpec(
        source_uri=str(source),
        output_uri=str(output),
        method=method_config(method, config),
        **options,
    )


def roots_of(spec: QuantizationSpec) -> Roots:
    """Roots that allow just the folders of the source and of the output."""
    outputs = (os.path.dirname(spec.output_uri),) if spec.output_uri else ()
    return Roots.of((os.path.dirname(spec.source_uri),), outputs)


def planned(
    spec: QuantizationSpec, host: Host = hosts.NO_GPU, *, page_size: int = 10_000
) -> PlanReport:
    """The plan of a spec, with all its tensors."""
    return plan(spec, roots_of(spec), host, offset=0, page_size=page_size)


def work_order(report: PlanReport, *, threads: int = 2, job_id: str = "job1") -> WorkOrder:
    """What a worker is told to do for an executable plan."""
    assert report.executable, report.findings
    return WorkOrder(
        job_id=job_id,
        spec=report.spec,
        source_path=report.source_path,
        output_path=report.output_path,
        paths=report.paths,
        source_fingerprint=report.source_fingerprint,
        threads=threads,
    )


def run(
    order: WorkOrder,
    *,
    cancelled: threading.Event | None = None,
    on_event: Callable[[WorkerEvent], None] = lambda event: None,
) -> list[WorkerEvent]:
    """Runs a job to its end; the last event is its result. Raises what ``JobRun.run`` does."""
    events: list[WorkerEvent] = []

    def emit(event: WorkerEvent) -> None:
        events.append(event)
        on_event(event)

    JobRun(order, emit, cancelled or threading.Event()).run()
    return events


def quantize(
    source: Path,
    output: Path,
    method: str,
    config: Mapping[str, Any] | None = None,
    *,
    threads: int = 2,
    **options: Any,
) -> QuantizationResult:
    """Quantizes ``source`` into ``output``."""
    report = planned(specification(source, output, method, config, **options))
    result = run(work_order(report, threads=threads))[-1]
    assert isinstance(result, QuantizationResult)
    return result


def stored_tensors(folder: Path) -> Stored:
    """Every tensor in the safetensors files of a folder, read by the format's definition."""
    found: Stored = {}
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        for name, entry in json.loads(data[8:start]).items():
            if name == "__metadata__":
                continue
            assert name not in found, f"{name} is in two files"
            begin, end = entry["data_offsets"]
            shape = tuple(entry["shape"])
            found[name] = (entry["dtype"], shape, data[start + begin : start + end])
    return found


def real_model() -> Path:
    """The real model that the slow tests use; skips without one."""
    folder = os.environ.get("QUANTD_TEST_MODEL")
    if not folder:
        pytest.skip("QUANTD_TEST_MODEL names no checkpoint folder (`make model` writes one)")
    return Path(folder)
