"""Table: what plans say of size and memory, beside what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.table import MEGABYTE, print_table

NOTES = """\
size: bytes of the weight files. peak: as the job's result says; what had to be compiled first, in a
process of its own, is in both. The plan was asked for right before the job. A ratio of peaks below
1 would be a plan that promises too little; at most 1.3 is aimed at."""


@dataclass(frozen=True)
class Prediction:
    """One job."""

    model: str
    case: str
    planned_size: int
    size: int
    planned_peak: int
    peak: int


def print_predictions(predictions: Sequence[Prediction]) -> None:
    """Prints the table, a row for each job."""
    print_table(
        "Plan and result",
        ["", "model", "planned bytes", "written bytes", "difference"]
        + ["planned peak MB", "peak MB", "ratio"],
        [
            [
                job.case,
                job.model,
                f"{job.planned_size:,}",
                f"{job.size:,}",
                f"{job.size - job.planned_size:+,}" if job.size != job.planned_size else "none",
                f"{job.planned_peak / MEGABYTE:.0f}",
                f"{job.peak / MEGABYTE:.0f}",
                f"{job.planned_peak / job.peak:.2f}",
            ]
            for job in predictions
        ],
        notes=NOTES,
    )
