"""How long a job will take, from the jobs of its kind that this server has finished."""

from __future__ import annotations

from collections import deque

import msgspec

from quantd_server.methods.configs import Bitsandbytes4BitConfig, GgufConfig
from quantd_server.planning.report import Plan

REMEMBERED_JOBS = 8
"""Of each kind; the newest count, as the load of a host changes."""

Kind = tuple[str, str, str]
"""Method, type and device: what decides the speed beside the size of the source."""


class FinishedJobs:
    """Bytes and seconds of finished jobs, by kind; in memory."""

    def __init__(self) -> None:
        self._measured: dict[Kind, deque[tuple[int, float]]] = {}

    def add(self, plan: Plan, seconds: float) -> None:
        """Remember that a job with ``plan`` took ``seconds`` for its source."""
        if seconds > 0 and plan.source_bytes > 0:
            jobs = self._measured.setdefault(_kind(plan), deque(maxlen=REMEMBERED_JOBS))
            jobs.append((plan.source_bytes, seconds))

    def estimate(self, plan: Plan) -> Plan:
        """``plan`` with the time it should take; as it is when no such job has finished.

        All bytes over all seconds: large jobs, in which starting up matters least, weigh most.
        """
        jobs = self._measured.get(_kind(plan))
        if not jobs:
            return plan
        rate = sum(size for size, _ in jobs) / sum(seconds for _, seconds in jobs)
        of_kind = " ".join(part for part in _kind(plan)[:2] if part)
        count = "1 job" if len(jobs) == 1 else f"{len(jobs)} jobs"
        return msgspec.structs.replace(
            plan,
            estimated_duration=plan.source_bytes / rate,
            estimate_basis=f"{count} with {of_kind} on this server's {plan.device}, "
            f"{rate / 1e6:.3g} MB of the source a second",
        )


def _kind(plan: Plan) -> Kind:
    config = plan.method.value
    match config:
        case GgufConfig():
            quantized_type = config.file_type or ""
        case Bitsandbytes4BitConfig():
            double = " double" if config.bnb_4bit_use_double_quant else ""
            quantized_type = f"{config.bnb_4bit_quant_type or ''}{double}"
        case _:
            quantized_type = ""
    return plan.method.name, quantized_type, plan.device
