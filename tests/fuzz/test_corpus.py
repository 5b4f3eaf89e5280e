"""Every input of the fuzzers' corpus: no crash, no hang, no memory out of proportion.

The inputs reach all that fuzzing and the targets' seeds reached; ``make fuzz`` looks for more.
"""

from __future__ import annotations

import signal

import pytest
from tests.fuzz.bounds import ALLOCATION_LIMIT, BoundExceededError, bounded
from tests.fuzz.corpus import CORPUS, TARGETS, committed, target_named

HANG_SECONDS = 60
"""Of the clock, for all inputs of a target."""
MAX_CORPUS_BYTES = 1_000_000


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_are_answered(name):
    def hang(*_):
        raise TimeoutError(f"{name}: {place} hangs")

    target = target_named(name)
    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(HANG_SECONDS)
    try:
        for place, content in committed(name).items():
            try:
                with bounded():
                    target.run(content)
            except Exception as error:
                error.add_note(f"with the input {name}/{place}")
                raise
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_the_corpus_is_small():
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} <= set(TARGETS)
    assert sum(path.stat().st_size for path in files) < MAX_CORPUS_BYTES


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_are_no_longer_than_a_fuzzer_would_make_them(name):
    assert max(map(len, committed(name).values())) <= target_named(name).max_bytes


def test_too_much_memory_is_noticed():
    with bounded():
        bytearray(ALLOCATION_LIMIT // 2)
    with pytest.raises(MemoryError), bounded():
        bytearray(ALLOCATION_LIMIT * 2)


def test_too_much_time_is_noticed():
    with pytest.raises(BoundExceededError), bounded(0.01):
        sum(range(3_000_000))
