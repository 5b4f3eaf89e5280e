"""What an input may cost at most, and what a refusal may look like."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
import time
from collections.abc import Iterator

from tests.fuzz.target import folder

from quantd_server.api.error_codec import status_of
from quantd_server.errors import QuantdError
from quantd_server.reasons import REASONS

ALLOCATION_LIMIT = 256 << 20
CPU_SECONDS = 2.0
"""Of the processor and not of the clock, so that a busy machine changes nothing. Ten times what
the slowest input of 64 KB takes without instrumentation."""


class BoundExceededError(AssertionError):
    """An input that takes too long, or an answer that is too large."""


@contextlib.contextmanager
def bounded(cpu_seconds: float = CPU_SECONDS) -> Iterator[None]:
    """Raises BoundExceededError for too much time, MemoryError for too much memory (on Linux)."""
    with _limited_memory():
        start = time.process_time()
        yield
        taken = time.process_time() - start
    if taken > cpu_seconds:
        raise BoundExceededError(f"took {taken:.1f} s of processor time, {cpu_seconds} are allowed")


@contextlib.contextmanager
def _limited_memory() -> Iterator[None]:
    """Lets no more than ``ALLOCATION_LIMIT`` be allocated beside what is."""
    if sys.platform != "linux":
        yield
        return
    # The data segment: what is written to, other than addresses that allocators only reserve.
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with open("/proc/self/statm", "rb") as stream:
        pages = int(stream.read().split()[5])
    limit = pages * resource.getpagesize() + ALLOCATION_LIMIT
    resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def check_refusal(error: QuantdError) -> None:
    """A refusal is one that is documented, says no path of the server, and fits into trailers."""
    finding = error.finding
    assert finding.reason in REASONS, f"{finding.reason} is not documented"
    text = f"{finding.message} {finding.remedy} {finding.field}"
    assert str(folder()) not in text, f"names a path of the server: {text}"
    assert not re.search(r"Traceback|File \"", text), text
    text.encode("utf-8")
    assert len(text) < 4096, f"{len(text)} characters"
    status_of([finding]).SerializeToString()
