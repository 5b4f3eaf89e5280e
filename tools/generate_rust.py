"""Generates the Rust code of the spec into `clients/rust/`.

buf compiles the spec, and `clients/rust/generator`, a crate whose Cargo.lock pins every version,
writes what `GENERATED` lists. Without cargo nothing is done, and that is said.

Usage: python tools/generate_rust.py [--check]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
CRATE = REPOSITORY / "clients/rust"
GENERATED = ("src/generated", "examples/conformance")
SUFFIXES = (".rs", ".binpb")


class GenerationError(Exception):
    """Generation could not run, or committed code is not what it writes."""


def generate(cargo: str, crate: Path) -> None:
    """Writes all generated files of the Rust crate below `crate`."""
    with tempfile.TemporaryDirectory() as temporary:
        descriptors = Path(temporary) / "descriptors.binpb"
        _run([_buf(), "build", "--output", str(descriptors)])
        for folder in GENERATED:
            for path in _files(crate / folder):
                path.unlink()
        manifest = str(CRATE / "Cargo.toml")
        options = ("--quiet", "--locked", "--manifest-path", manifest)
        package = ("--package", "quantd-client-generator")
        _run([cargo, "run", *options, *package, "--", str(descriptors), str(crate)])


def check(cargo: str) -> None:
    """Raises GenerationError when committed code is not what the spec generates now."""
    with tempfile.TemporaryDirectory() as temporary:
        generate(cargo, Path(temporary))
        committed, generated = _read(CRATE), _read(Path(temporary))
    names = sorted(committed.keys() | generated.keys())
    if different := [name for name in names if committed.get(name) != generated.get(name)]:
        raise GenerationError(
            f"{', '.join(different)}: not what the spec generates; run `make generate`"
        )


def _read(crate: Path) -> dict[str, bytes]:
    return {
        path.relative_to(crate).as_posix(): path.read_bytes()
        for folder in GENERATED
        for path in _files(crate / folder)
    }


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.suffix in SUFFIXES]


def _buf() -> str:
    beside_python = Path(sys.executable).with_name("buf")
    buf = str(beside_python) if beside_python.is_file() else shutil.which("buf")
    if buf is None:
        raise GenerationError("buf is not installed; run `make setup` first")
    return buf


def _run(command: list[str]) -> None:
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise GenerationError(
            f"{Path(command[0]).name} {command[1]} failed (exit code {result.returncode}):\n"
            f"{result.stderr.strip()}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description="Generate the Rust code of the spec.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail when committed code is outdated"
    )
    arguments = parser.parse_args()
    cargo = shutil.which("cargo")
    if cargo is None:
        print("skipping the Rust code of the spec: cargo is not installed")
        return 0
    try:
        check(cargo) if arguments.check else generate(cargo, CRATE)
    except GenerationError as error:
        print(f"generate_rust: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
