"""What a job leaves on disk: a hidden folder if it was cut off, its output if it was done."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from quantd_server.checkpoint.output import working_directory
from quantd_server.engine.events import QuantizationResult


def discard_unfinished(output_path: str, job_name: str) -> None:
    """Remove what a worker left that could not clean up; nothing happens if it did."""
    shutil.rmtree(
        working_directory(Path(output_path), job_name.removeprefix("jobs/")), ignore_errors=True
    )


def remove_output(output_path: str, result: QuantizationResult) -> None:
    """Remove the files that a job reported as its own, and its folder if nothing else is in it."""
    output = Path(output_path)
    folder = output if output.is_dir() else output.parent
    for file in result.files:
        (folder / file.name).unlink(missing_ok=True)
    if folder == output:
        with contextlib.suppress(OSError):  # somebody put files of their own there
            output.rmdir()
