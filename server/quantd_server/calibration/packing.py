"""Tokens of texts become sequences of one length."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

Tokens = array
"""Token ids, of type "I": unsigned, 4 bytes each."""


def concatenated(runs: Iterable[Sequence[int]], length: int, prefix: Sequence[int]) -> list[Tokens]:
    """The runs joined, then cut into sequences of ``length`` tokens; the last remainder is dropped.

    Every sequence begins with ``prefix``, what the tokenizer puts before a text: no model sees a
    context without it, and some (Gemma) fall apart when they do. A sequence that begins with it
    anyway, as a rendered conversation may, gets no second one.
    """
    lead = array("I", prefix)
    sequences: list[Tokens] = []
    if len(lead) >= length:
        return sequences
    waiting = array("I")
    for run in runs:
        waiting.extend(run)
        begin = 0
        while True:
            led = waiting[begin : begin + len(lead)] == lead
            taken = length if led else length - len(lead)
            if len(waiting) - begin < taken:
                break
            body = waiting[begin : begin + taken]
            sequences.append(body if led else lead + body)
            begin += taken
        del waiting[:begin]
    return sequences


def truncated(texts: Iterable[Sequence[int]], length: int) -> tuple[list[Tokens], int]:
    """The first ``length`` tokens of each text, and how many texts were too short for that."""
    sequences: list[Tokens] = []
    dropped = 0
    for text in texts:
        if len(text) < length:
            dropped += 1
        else:
            sequences.append(array("I", text[:length]))
    return sequences, dropped
