"""The state of the kernels' sources, on which their machine code depends."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path


@functools.cache
def digest_of_sources() -> str:
    """SHA-256 of every module of this room, in hexadecimal."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
