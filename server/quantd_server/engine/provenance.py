"""The record that lies beside every output: what it was made from, how, and how well.

It holds no time and no path, so that the same job gives the same bytes wherever it runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version

import msgspec

from quantd_server import __version__
from quantd_server.engine.events import OutputFile
from quantd_server.engine.pipeline import TaskOutcome
from quantd_server.engine.specification import WorkOrder
from quantd_server.methods.base import WorkPlan

PROVENANCE_FILE = "quantd.json"

FORMAT_VERSION = 1

RECORDED_PACKAGES = ("numpy", "numba", "llvmlite", "gguf", "libggml-python")
"""Packages whose versions can change the bytes of an output."""


def provenance(
    order: WorkOrder,
    work: WorkPlan,
    outcomes: Sequence[TaskOutcome],
    files: Sequence[OutputFile],
    source_digest: str,
) -> str:
    """The text of ``quantd.json``. ``files`` are the weight files as written,
    ``source_digest`` is that of the source's headers.
    """
    tensors = {
        outcome.task.target_name: {
            "source": outcome.task.source.name if outcome.task.source else None,
            "type": outcome.task.target_type,
            "reason": outcome.task.reason,
            "relative_error": outcome.relative_error,
        }
        for outcome in outcomes
    }
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
        "packages": {name: version(name) for name in RECORDED_PACKAGES},
        "files": {file.name: {"bytes": file.size_bytes, "sha256": file.sha256} for file in files},
        # Tensors finish in the order in which threads end; they are recorded in the plan's.
        "tensors": {
            task.target_name: tensors[task.target_name]
            for task in work.tasks
            if task.target_name in tensors
        },
    }
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"
