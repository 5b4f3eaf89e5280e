"""What is fuzzed: a function of bytes, inputs to begin with, and a way to change an input."""

from __future__ import annotations

import atexit
import functools
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

Mutate = Callable[[bytes, int, random.Random, Callable[[bytes, int], bytes]], bytes]
"""``(data, max_size, random, mutate_bytes)``; ``mutate_bytes(data, max_size)`` knows no format."""

FOLDER_VARIABLE = "QUANTD_FUZZ_FOLDER"
"""Where whoever runs a target wants its files, since a fuzzer ends without tidying up."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One thing to fuzz."""

    run: Callable[[bytes], None]
    """Raises for whatever must not be. Anything else is an answer, a refusal too."""
    seeds: Callable[[], Mapping[str, bytes]]
    """Inputs to begin with, by name."""
    mutate: Mutate
    """A changed input. Bytes alone rarely get through a decoder."""
    max_bytes: int = 1 << 16


def temporary_folder() -> Path:
    """A new folder, whose name has always the same length."""
    # Not TMPDIR: requests name this folder, and lengths stand in their bytes.
    return Path(tempfile.mkdtemp(prefix="quantd-", dir="/tmp"))


@functools.cache
def folder() -> Path:
    """The folder of this process's targets; no component of it is a link."""
    if given := os.environ.get(FOLDER_VARIABLE):
        return Path(given)
    made = temporary_folder()
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made
