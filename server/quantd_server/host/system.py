"""Where facts about a machine come from: one value, so that a test can be another machine."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from quantd_server.host import nvml

SYSCTL = "/usr/sbin/sysctl"
SYSCTL_SECONDS = 5.0


def read_sysctl(names: Sequence[str]) -> dict[str, str]:
    """Values of macOS's kernel by name, without those it does not know."""
    try:
        answer = subprocess.run(
            [SYSCTL, *names],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SYSCTL_SECONDS,
            check=False,  # one unknown name fails the program, which prints the others all the same
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    lines = (line.partition(": ") for line in answer.stdout.splitlines())
    return {name: value for name, colon, value in lines if colon}


class System(msgspec.Struct, frozen=True, kw_only=True):
    """What is read to describe a host: the kernel's files, sysctl, the driver's library."""

    name: str
    """As ``platform.system()`` says: "Linux", "Darwin", "Windows"."""
    release: str
    machine: str
    """Instruction set, such as "x86_64"."""
    root: Path = Path("/")
    """Root of the file system with /proc and /sys."""
    sysctl: Callable[[Sequence[str]], Mapping[str, str]] = read_sysctl
    load_nvml: Callable[[], Any] = nvml.load_library
    """Raises OSError where there is no NVIDIA driver."""

    @property
    def is_apple_silicon(self) -> bool:
        """Whether it is a Mac whose GPU is part of the processor."""
        return self.name == "Darwin" and self.machine == "arm64"


def this_system() -> System:
    """The machine this process runs on."""
    return System(name=platform.system(), release=platform.release(), machine=platform.machine())


def read_text(path: Path) -> str:
    """The stripped text of a file of the kernel; empty when it is not there or not readable."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def read_number(path: Path) -> int:
    """The decimal or 0x number that a file holds; 0 when it holds none."""
    try:
        return int(read_text(path), 0)
    except ValueError:
        return 0
