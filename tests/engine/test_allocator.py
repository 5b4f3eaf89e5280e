"""Freed memory goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import numpy as np
from quantd_server.engine.allocator import return_free_memory, separate_large_tensors
from quantd_server.engine.resident_memory import current_bytes

separate_large_tensors()
large = np.ones(64 << 20, np.uint8)
behind = np.ones(1 << 20, np.uint8)
with_large = current_bytes()
del large
freed = with_large - current_bytes()
small = [np.ones(1 << 20, np.uint8) for _ in range(300)]
del small[:-1]  # the last one keeps the heap from shrinking at its end
full = current_bytes()
return_free_memory()
print(freed, full - current_bytes())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries cannot be told")
def test_freed_memory_is_returned():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    large, heap = map(int, done.stdout.split())
    assert large > 60 << 20
    assert heap > 200 << 20
