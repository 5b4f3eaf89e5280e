"""When the Rust code of the spec is outdated, and what happens without cargo."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import generate_rust


@pytest.fixture
def crate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A crate with the committed code, whose generator writes the same again."""
    committed = generate_rust.CRATE
    monkeypatch.setattr(generate_rust, "CRATE", tmp_path)

    def copy(_: str, crate: Path) -> None:
        for folder in generate_rust.GENERATED:
            shutil.copytree(committed / folder, crate / folder)

    monkeypatch.setattr(generate_rust, "generate", copy)
    copy("", tmp_path)
    return tmp_path


def test_what_is_committed_is_what_is_generated(crate: Path) -> None:
    generate_rust.check("cargo")


def test_outdated_missing_and_superfluous_files_are_named(crate: Path) -> None:
    folder = crate / "src/generated"
    (folder / "google.rpc.rs").write_text("")
    (folder / "quantd.v1.rs").unlink()
    (folder / "quantd.v2.rs").write_text("")
    (crate / "examples/conformance/descriptors.binpb").write_bytes(b"")
    with pytest.raises(generate_rust.GenerationError) as caught:
        generate_rust.check("cargo")
    for name in ("google.rpc.rs", "quantd.v1.rs", "quantd.v2.rs", "descriptors.binpb"):
        assert name in str(caught.value)


@pytest.mark.parametrize("options", [[], ["--check"]])
def test_without_cargo_nothing_is_done_and_that_is_said(options: list[str], tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, generate_rust.__file__, *options],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "skipping the Rust code of the spec: cargo is not installed\n"
