"""How much of a job is on record in its hidden folder, for whom the numbers alone matter."""

from __future__ import annotations

from pathlib import Path

import msgspec

TENSOR_RECORD = "tensors"
"""Written by ``engine.finished_tensors``."""
BLOCK_RECORD = "blocks"
"""Written by ``engine.solved_blocks``."""


class _Checkpoint(msgspec.Struct):
    """What counts of ``solved_blocks.Checkpoint``."""

    blocks: int
    states: msgspec.Raw
    """``null`` when everything is solved."""


def recorded_steps(working: Path) -> int:
    """Tensors and blocks that another worker need not do again; 0 where there is no record.

    Comparable among the attempts of one job: more means further.
    """
    steps = len(_lines(working / TENSOR_RECORD))
    if checkpoints := _lines(working / BLOCK_RECORD):
        try:
            last = msgspec.json.decode(checkpoints[-1], type=_Checkpoint)
        except msgspec.DecodeError:  # not of our making; its worker will start anew
            return steps
        steps += last.blocks + (bytes(last.states) == b"null")
    return steps


def _lines(record: Path) -> list[bytes]:
    """The whole lines after the first, which says what they depend on."""
    try:
        lines = record.read_bytes().splitlines(keepends=True)
    except OSError:
        return []
    return [line for line in lines[1:] if line.endswith(b"\n")]
