"""What a walk keeps between passes is what plans say that it takes on disk."""

from __future__ import annotations

import pytest
from tests.calibration.families import FAMILIES, LENGTH, make, sequences
from tests.calibration.test_walk import walking

from quantd_server.engine.calibrated_estimate import activation_bytes

COUNT = 40
"""Sequences: what one micro-batch takes is not in the estimate."""


@pytest.mark.parametrize("sequential", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_keeps_about_what_is_planned(family, sequential, tmp_path):
    make(family, tmp_path / "model")
    with walking(
        tmp_path / "model",
        budget=0,
        sequences=sequences(COUNT),
        sequential=sequential,
        bf16_products=True,
    ) as walk:
        for block in walk:
            linears = walk._model.linears(block.index)
            shapes = {f"{name}.weight": linear.shape for name, linear in linears.items()}
            for stage in block.stages():
                for group in stage.groups:
                    group.statistics()
        kept = walk._store.spilled_bytes
    planned = activation_bytes(shapes, COUNT * LENGTH)
    assert kept <= planned <= 2.2 * kept
