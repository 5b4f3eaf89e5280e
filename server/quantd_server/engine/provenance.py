"""The record that lies beside every output: what it was made from, how, and how well.

It holds no time and no path, so that the same job gives the same bytes wherever it runs. With
calibration that is so on one kind of machine with one number of threads: torch's matrix products
add up in an order that depends on both.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version

import msgspec

from quantd_server import __version__
from quantd_server.calibration.config import CalibrationUsage
from quantd_server.engine.events import Evaluation, OutputFile
from quantd_server.engine.pipeline import TaskOutcome
from quantd_server.engine.specification import WorkOrder
from quantd_server.methods.base import WorkPlan

PROVENANCE_FILE = "quantd.json"

FORMAT_VERSION = 1

RECORDED_PACKAGES = ("numpy", "numba", "llvmlite", "gguf", "libggml-python")
"""Packages whose versions can change the bytes of an output."""

MODEL_PACKAGES = ("torch", "transformers", "tokenizers")
"""More of them, where calibration data goes through the model."""


def provenance(
    order: WorkOrder,
    work: WorkPlan,
    outcomes: Sequence[TaskOutcome],
    files: Sequence[OutputFile],
    source_digest: str,
    *,
    calibration: CalibrationUsage | None,
    evaluation: Evaluation | None,
) -> str:
    """The text of ``quantd.json``. ``files`` are the weight files as written, ``source_digest`` is
    that of the source's headers. ``calibration`` and ``evaluation``: what was used and what was
    measured, of a method that calibrates.
    """
    tensors = {outcome.task.target_name: _tensor(outcome) for outcome in outcomes}
    record = {
        "format_version": FORMAT_VERSION,
        "method": order.spec.method.name,
        "config": msgspec.to_builtins(order.spec.method.value),
        "device": order.spec.device,
        "source": {
            "bytes": sum(task.source_bytes for task in work.tasks),
            "tensors": sum(task.source is not None for task in work.tasks),
            "headers_sha256": source_digest,
        },
        "quantd_version": __version__,
        "packages": {
            name: version(name)
            for name in (*RECORDED_PACKAGES, *(MODEL_PACKAGES if calibration else ()))
        },
        **({"calibration": msgspec.to_builtins(calibration)} if calibration else {}),
        **({"evaluation": msgspec.to_builtins(evaluation)} if evaluation else {}),
        "files": {file.name: {"bytes": file.size_bytes, "sha256": file.sha256} for file in files},
        **({"blocks": blocks} if (blocks := _blocks(outcomes)) else {}),
        # Tensors finish in the order in which threads end; they are recorded in the plan's.
        "tensors": {
            task.target_name: tensors[task.target_name]
            for task in work.tasks
            if task.target_name in tensors
        },
    }
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def _blocks(outcomes: Sequence[TaskOutcome]) -> dict[int, dict[str, float]]:
    """The errors of the blocks that were tuned, by their numbers."""
    errors = {
        outcome.task.block: {
            "output_error": outcome.block_output_error,
            "untuned_output_error": outcome.untuned_block_output_error,
        }
        for outcome in outcomes
        if outcome.task.block is not None
        and outcome.block_output_error is not None
        and outcome.untuned_block_output_error is not None
    }
    return dict(sorted(errors.items()))


def _tensor(outcome: TaskOutcome) -> dict[str, object]:
    task = outcome.task
    record: dict[str, object] = {
        "source": task.source.name if task.source else None,
        "type": task.target_type,
        "reason": task.reason,
        "relative_error": outcome.relative_error,
    }
    if outcome.output_error is not None:
        record["output_error"] = outcome.output_error
        record["rounding_output_error"] = outcome.rounding_output_error
    return record
