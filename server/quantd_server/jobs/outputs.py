"""What a job leaves on disk: a hidden folder if it was cut off, its output if it was done."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

import msgspec

from quantd_server.checkpoint.output import receipt_of_published, working_directory
from quantd_server.engine.events import QuantizationResult
from quantd_server.engine.recorded_work import recorded_steps
from quantd_server.errors import QuantdError


def discard_unfinished(output_path: str, job_name: str) -> None:
    """Remove what a worker left that could not clean up; nothing happens if it did."""
    shutil.rmtree(
        working_directory(Path(output_path), job_name.removeprefix("jobs/")), ignore_errors=True
    )


def steps_on_record(output_path: str, job_name: str) -> int:
    """How far workers came with the job, of what the next one need not do again."""
    return recorded_steps(working_directory(Path(output_path), job_name.removeprefix("jobs/")))


def published_result(output_path: str, job_name: str) -> QuantizationResult | None:
    """The result that a worker had no time to report, if it has published its output."""
    output = Path(output_path)
    job_id = job_name.removeprefix("jobs/")
    receipt = receipt_of_published(output, job_id, single_file=_is_single_file(output))
    if receipt is None:
        return None
    try:
        return msgspec.json.decode(receipt, type=QuantizationResult)
    except msgspec.DecodeError:  # not of our making
        return None


def _is_single_file(output: Path) -> bool:
    # By its form, not by what is there: where an output is gone, its folder's files are others'.
    return output.suffix == ".gguf"


def remove_output(output_path: str, result: QuantizationResult) -> None:
    """Remove the files that a job reported as its own, and its folder if nothing else is in it.

    Raises QuantdError OUTPUT_NOT_WRITABLE.
    """
    output = Path(output_path)
    folder = output.parent if _is_single_file(output) else output
    try:
        for file in result.files:
            if not (folder / file.name).is_dir():  # then it is somebody else's by now
                (folder / file.name).unlink(missing_ok=True)
    except OSError as error:
        raise QuantdError(
            reason="OUTPUT_NOT_WRITABLE",
            field="delete_output",
            kind="precondition",
            message=f"the output cannot be removed: {os.strerror(error.errno or errno.EIO)}",
            remedy="give the server's user permission to remove it, or delete the job alone",
        ) from None
    if folder == output:
        with contextlib.suppress(OSError):  # somebody put files of their own there
            output.rmdir()
