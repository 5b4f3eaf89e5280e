"""What the plan says about a walk's memory, against a walk in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.calibration.families import make

from quantd_server.calibration.memory import walk_memory_bytes

HIDDEN, INTERMEDIATE = 512, 4096
SHAPES = {
    "q_proj": (HIDDEN, HIDDEN),
    "k_proj": (HIDDEN // 2, HIDDEN),
    "v_proj": (HIDDEN // 2, HIDDEN),
    "o_proj": (HIDDEN, HIDDEN),
    "gate_proj": (INTERMEDIATE, HIDDEN),
    "up_proj": (INTERMEDIATE, HIDDEN),
    "down_proj": (HIDDEN, INTERMEDIATE),
}

WALK = """
import sys
from pathlib import Path
from quantd_server.engine.resident_memory import largest_bytes
from tests.calibration.families import sequences
from tests.calibration.test_walk import walking
samples = sequences(40, length=64)
with walking(Path(sys.argv[1]), budget=int(sys.argv[2]), sequences=samples, step_tokens=None,
             bf16_products=True) as walk:
    for block in walk:
        for stage in block.stages():
            for group in stage.groups:
                group.statistics()
                for name in group.names:
                    stage.replace(name, stage.weight(name))
print(largest_bytes())
"""


def predicted(budget: int) -> int:
    block = sum(4 * rows * columns for rows, columns in SHAPES.values())
    return walk_memory_bytes(
        linears=SHAPES,
        block_bytes=block,
        sequence_length=64,
        hidden=HIDDEN,
        budget_bytes=budget,
    )


def test_the_budget_counts_in_full():
    assert predicted(5 << 20) - predicted(0) == 5 << 20


@pytest.mark.slow
def test_a_walk_stays_within_what_is_predicted(tmp_path):
    make(
        "llama",
        tmp_path / "model",
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_attention_heads=4,
        head_dim=128,
        num_hidden_layers=6,
    )
    budget = 8 << 20
    finished = subprocess.run(
        [sys.executable, "-c", WALK, str(tmp_path / "model"), str(budget)],
        check=True,
        capture_output=True,
        text=True,
    )
    peak = int(finished.stdout)
    assert peak < predicted(budget) < 1.5 * peak
