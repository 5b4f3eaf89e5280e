"""A disk of a few kilobytes, whose size can be changed while it is in use."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class SmallDisk:
    """A file system in memory, mounted on ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def resize(self, nbytes: int) -> None:
        """In pages, rounded up; what is there stays."""
        subprocess.run(
            ["mount", "-o", f"remount,size={nbytes}", str(self.folder)],
            check=True,
            capture_output=True,
        )

    @property
    def used(self) -> int:
        status = os.statvfs(self.folder)
        return (status.f_blocks - status.f_bfree) * status.f_frsize


@contextlib.contextmanager
def small_disk(folder: Path, nbytes: int) -> Iterator[SmallDisk]:
    """Skips the test where this user may not mount anything."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={nbytes}", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root may mount a small disk, and not everywhere")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)
