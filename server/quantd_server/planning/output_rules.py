"""What stands against an output: occupied, inside the source, of the wrong form, too large."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from quantd_server.checkpoint.output import working_directory
from quantd_server.errors import Finding, Severity

FIELD = "spec.output_uri"

SPARE_BYTES = 64 << 20
"""Kept free on the output's disk, for the small files and for other programs."""

MAX_NAME_BYTES = 255
"""Longest name in a folder that the usual file systems take."""

MAX_PATH_BYTES = 3500
"""Longest path of the folder that an output is prepared in: the limit of Linux is 4096, and the
files inside have names too."""

JOB_ID_LENGTH = 36
"""A UUID, which is part of that folder's name."""


def output_findings(
    output: Path, source: Path, *, single_file: bool, needed_bytes: int
) -> Iterator[Finding]:
    """All findings about the real path ``output`` of a result of ``needed_bytes``."""
    working = working_directory(output, "0" * JOB_ID_LENGTH)
    longest = max(len(os.fsencode(name)) for name in working.parts)
    if longest > MAX_NAME_BYTES or len(os.fsencode(working)) > MAX_PATH_BYTES:
        spare = len(os.fsencode(working.name)) - len(os.fsencode(output.name))
        yield _finding(
            "OUTPUT_NAME_TOO_LONG",
            f"the path is too long; its last name may have {MAX_NAME_BYTES - spare} bytes, the "
            f"others {MAX_NAME_BYTES}, and all of it {MAX_PATH_BYTES - spare}",
            "name a shorter path",
            kind="invalid",
        )
        return
    if single_file != (output.suffix == ".gguf"):
        expected = "a path that ends in .gguf" if single_file else "a directory"
        yield _finding(
            "OUTPUT_FORM",
            f"{output.name} is not {expected}, which this method writes",
            f"name {expected}",
            kind="invalid",
        )
    if output == source or output.is_relative_to(source) or source.is_relative_to(output):
        yield _finding(
            "OUTPUT_INSIDE_SOURCE",
            "the output and the source contain one another",
            "name an output beside the source",
            kind="invalid",
        )
    if _occupied(output):
        yield _finding(
            "OUTPUT_NOT_EMPTY",
            f"{output.name} exists and is not an empty directory",
            "name an output that does not exist, or remove that one",
        )
    existing = _existing_ancestor(output)
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        yield _finding(
            "OUTPUT_NOT_WRITABLE",
            "the server may not create files there",
            "give the server's user write access to the folder, or name another one",
        )
        return
    free = shutil.disk_usage(existing).free
    if free < needed_bytes + SPARE_BYTES:
        yield _finding(
            "DISK_TOO_SMALL",
            f"the job takes {needed_bytes} bytes and {SPARE_BYTES} are kept free, "
            f"but only {free} are free",
            f"free {needed_bytes + SPARE_BYTES - free} bytes, or name an output on another disk",
        )


def _finding(reason: str, message: str, remedy: str, kind: str = "precondition") -> Finding:
    return Finding(
        severity=Severity.ERROR,
        field=FIELD,
        reason=reason,
        message=message,
        remedy=remedy,
        kind=kind,  # type: ignore[arg-type]
    )


def _occupied(path: Path) -> bool:
    if not os.path.lexists(path):
        return False
    if path.suffix == ".gguf" or not os.path.isdir(path):
        return True
    try:
        with os.scandir(path) as entries:
            return any(True for _ in entries)
    except OSError:  # what may not be looked into may not be replaced
        return True


def _existing_ancestor(path: Path) -> Path:
    path = path.parent
    while not os.path.exists(path):
        path = path.parent
    return path
