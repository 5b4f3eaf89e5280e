"""What the generators of all languages share: finding installed tools, running them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


class GenerationError(Exception):
    """Generation could not run, or committed code is not what it writes."""


def installed(name: str) -> str:
    """Path of a program of this Python's environment, or else of the system."""
    beside_python = Path(sys.executable).with_name(name)
    found = str(beside_python) if beside_python.is_file() else shutil.which(name)
    if found is None:
        raise GenerationError(f"{name} is not installed; run `make setup` first")
    return found


def run(
    command: Sequence[str],
    standard_input: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> bytes:
    """What a program writes to standard output; it runs at the root of the repository."""
    result = subprocess.run(
        command,
        cwd=REPOSITORY,
        input=standard_input,
        env=environment,
        capture_output=True,
        check=False,
    )
    if result.returncode != 0:
        raise GenerationError(
            f"{Path(command[0]).name} {command[1]} failed (exit code {result.returncode}):\n"
            f"{result.stderr.decode(errors='replace').strip()}"
        )
    return result.stdout


def require_same(
    committed: Mapping[str, bytes] | Mapping[str, str],
    generated: Mapping[str, bytes] | Mapping[str, str],
) -> None:
    """Raises GenerationError when committed files are not those that the spec generates now."""
    names = sorted(committed.keys() | generated.keys())
    if different := [name for name in names if committed.get(name) != generated.get(name)]:
        raise GenerationError(
            f"{', '.join(different)}: not what the spec generates; run `make generate`"
        )
