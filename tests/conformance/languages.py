"""The languages that have a client, and how their runners are built and started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
BUILD_SECONDS = 1800


class NotBuiltError(Exception):
    """A runner that cannot be built; the message is what the compiler says."""


@dataclass(frozen=True)
class Language:
    """One column of the matrix. Commands run in ``folder``; {output} is where a program goes."""

    folder: str
    run: tuple[str, ...]
    build: tuple[str, ...] = ()
    tool: str = ""
    """The program that has to be on PATH; empty where nothing is needed."""


LANGUAGES: dict[str, Language] = {
    "go": Language(
        folder="clients/go",
        tool="go",
        build=("go", "build", "-race", "-o", "{output}", "./internal/conformance"),
        run=("{output}",),
    ),
    "rust": Language(
        folder="clients/rust",
        tool="cargo",
        build=("cargo", "build", "--locked", "--quiet", "--example", "conformance"),
        run=("target/debug/examples/conformance",),
    ),
    "python": Language(
        folder="tests/conformance", run=(sys.executable, "python_runner.py"), tool=""
    ),
}


def missing(language: Language) -> str:
    """Why there cannot be a runner on this machine; empty when there can."""
    if not (REPOSITORY / language.folder).is_dir():
        return f"there is no {language.folder}"
    if language.tool and shutil.which(language.tool) is None:
        return f"{language.tool} is not on PATH"
    return ""


def build(language: Language, scratch: Path) -> Sequence[str]:
    """Builds a runner; the command that starts it.

    Raises:
        NotBuiltError: The compiler refuses it.
    """
    folder = REPOSITORY / language.folder
    output = str(scratch / "runner")
    if language.build:
        command = [part.format(output=output) for part in language.build]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
        )
        if done.returncode:
            raise NotBuiltError(f"{' '.join(command)}:\n{done.stderr or done.stdout}")
    program, *arguments = (part.format(output=output) for part in language.run)
    found = folder / program
    return [str(found) if found.exists() else program, *(str(folder / each) for each in arguments)]


def environment() -> dict[str, str]:
    """What runners see: ours, able to import what we can, without settings of quantd."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QUANTD_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
