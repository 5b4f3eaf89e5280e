"""Which kernels a job needs, and whether this machine has them compiled.

Planning asks, because compiling takes memory; so nothing here imports numba. What it knows it
knows from marks, empty files that workers leave beside numba's own: one for each kind of work, and
for one state of everything that machine code depends on.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec

from quantd_server import kernels
from quantd_server.host.cpu import describe_cpu
from quantd_server.host.packages import installed_version
from quantd_server.host.system import this_system
from quantd_server.kernels.sources import digest_of_sources
from quantd_server.methods.base import TensorTask

COMPUTED = ("QUANTIZE", "FALLBACK", "CONVERT")
"""Actions that need a quantizer."""

FLOAT_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes of a value, for the source types whose values are looked at."""

SAME_KERNELS = {"FP4": "NF4"}
"""Types that the kernels of another type make, from other tables."""


def samples(tasks: Iterable[TensorTask]) -> tuple[TensorTask, ...]:
    """For every kind of work among ``tasks``, one of them cut down to a single row.

    Doing the samples calls every kernel that doing all the tasks calls.
    """
    first: dict[str, TensorTask] = {}
    for task in tasks:
        if task.block is not None:  # solved by torch, and kernels of its own
            continue
        looked_at = task.source is not None and task.source.dtype in FLOAT_BYTES
        if looked_at and task.element_count and task.action in (*COMPUTED, "KEEP"):
            first.setdefault(_kind(task), task)
    return tuple(map(_one_row, first.values()))


def _kind(task: TensorTask) -> str:
    """What decides on the kernels and on the types that they are compiled for."""
    assert task.source is not None
    if task.action == "KEEP":
        return f"{task.source.dtype} kept"
    target = SAME_KERNELS.get(task.target_type, task.target_type)
    weighed = " weighed" if task.importance else ""
    return f"{task.source.dtype} to {target}, {len(task.parts)} parts{weighed}"


def _one_row(task: TensorTask) -> TensorTask:
    assert task.source is not None
    columns = task.target_shape[-1] if task.shape else 1
    shape = (*[1] * (len(task.shape) - 1), columns) if task.shape else ()
    nbytes = columns * FLOAT_BYTES[task.source.dtype]
    return msgspec.structs.replace(
        task,
        source=msgspec.structs.replace(task.source, shape=shape, nbytes=nbytes),
        shape=shape,
        transform="copy",
        importance=task.importance[: 4 * columns],
    )


def uncompiled(samples: Iterable[TensorTask], device: str) -> int:
    """How many of the samples need kernels that are not known to be compiled."""
    folder = cache_folder()
    if folder is None:
        return sum(1 for _ in samples)
    return sum(not (folder / _mark(sample, device)).exists() for sample in samples)


def mark_compiled(samples: Iterable[TensorTask], device: str) -> None:
    """Note for later plans that the kernels of these samples are in the cache."""
    folder = cache_folder()
    if folder is None:
        return
    for sample in samples:
        # A mark that cannot be left makes a later plan ask for too much memory, no more.
        with contextlib.suppress(OSError):
            (folder / _mark(sample, device)).touch()


def cache_folder() -> Path | None:
    """Where compiled kernels are kept, chosen as numba chooses; None when there is no place."""
    named = os.environ.get("NUMBA_CACHE_DIR")
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    choices = [Path(kernels.__file__).parent / "__pycache__", Path(user) / "numba"]
    return next(filter(_is_writable, [Path(named), *choices] if named else choices), None)


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _mark(sample: TensorTask, device: str) -> str:
    text = f"{_environment()}\n{device}\n{_kind(sample)}"
    return f"quantd-{hashlib.sha256(text.encode()).hexdigest()[:24]}.compiled"


@functools.cache
def _environment() -> str:
    """What machine code depends on: sources, compiler, interpreter, processor."""
    cpu = describe_cpu(this_system())
    versions = [installed_version(name) for name in ("numba", "llvmlite", "numpy")]
    # numba keeps machine code apart for each place of a source and each time of its last change.
    folder = Path(kernels.__file__).parent
    places = [(str(path), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*.py"))]
    return repr((digest_of_sources(), places, versions, sys.version, cpu.model, cpu.features))
