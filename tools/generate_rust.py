"""Generates the Rust code of the spec into `clients/rust/`.

buf compiles the spec, and `clients/rust/generator`, a crate whose Cargo.lock pins every version,
writes what `GENERATED` lists. Without cargo nothing is done, and that is said.

Usage: python tools/generate_rust.py [--check]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from generation import REPOSITORY, GenerationError, installed, require_same, run

CRATE = REPOSITORY / "clients/rust"
GENERATED = ("src/generated", "examples/conformance")
SUFFIXES = (".rs", ".binpb")


def generate(cargo: str, crate: Path) -> None:
    """Writes all generated files of the Rust crate below `crate`."""
    with tempfile.TemporaryDirectory() as temporary:
        descriptors = Path(temporary) / "descriptors.binpb"
        run([installed("buf"), "build", "--output", str(descriptors)])
        for folder in GENERATED:
            for path in _files(crate / folder):
                path.unlink()
        manifest = str(CRATE / "Cargo.toml")
        options = ("--quiet", "--locked", "--manifest-path", manifest)
        package = ("--package", "quantd-client-generator")
        run([cargo, "run", *options, *package, "--", str(descriptors), str(crate)])


def check(cargo: str) -> None:
    """Raises GenerationError when committed code is not what the spec generates now."""
    with tempfile.TemporaryDirectory() as temporary:
        generate(cargo, Path(temporary))
        committed, generated = _read(CRATE), _read(Path(temporary))
    require_same(committed, generated)


def _read(crate: Path) -> dict[str, bytes]:
    return {
        path.relative_to(crate).as_posix(): path.read_bytes()
        for folder in GENERATED
        for path in _files(crate / folder)
    }


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.suffix in SUFFIXES]


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
