"""Estimates of time: from finished jobs of the same kind, and from nothing else."""

from __future__ import annotations

import pytest
from tests import hosts, tiny_models
from tests.quantizing import planned, specification

from quantd_server.planning.report import Plan
from quantd_server.planning.time_estimate import REMEMBERED_JOBS, FinishedJobs


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_models.write(tmp_path_factory.mktemp("models") / "source")


def plan_of(source, method, config=None, **options) -> Plan:
    plan = planned(specification(source, "", method, config, **options), hosts.H100).plan
    assert plan is not None
    return plan


def test_without_a_basis_there_is_no_estimate(source) -> None:
    plan = plan_of(source, "gguf", {"file_type": "Q8_0"})
    jobs = FinishedJobs()
    assert jobs.estimate(plan) == plan
    assert (plan.estimated_duration, plan.estimate_basis) == (None, "")
    for other in (
        plan_of(source, "gguf", {"file_type": "Q4_0"}),
        plan_of(source, "bitsandbytes_8bit"),
        plan_of(source, "bitsandbytes_4bit", {"bnb_4bit_quant_type": "NF4"}),
    ):
        jobs.add(other, 10.0)
    assert jobs.estimate(plan) == plan
    on_cpu = plan_of(source, "bitsandbytes_8bit")
    on_card = plan_of(source, "bitsandbytes_8bit", device="CUDA")
    assert jobs.estimate(on_cpu).estimated_duration == pytest.approx(10.0)
    assert jobs.estimate(on_card) == on_card


def test_an_estimate_is_refined_by_finished_jobs(source, tmp_path) -> None:
    small = plan_of(source, "gguf", {"file_type": "Q8_0"})
    large = plan_of(tiny_models.write(tmp_path / "l", hidden=256), "gguf", {"file_type": "Q8_0"})
    jobs = FinishedJobs()
    jobs.add(small, 2.0)
    first = jobs.estimate(large)
    assert first.estimated_duration == pytest.approx(2.0 * large.source_bytes / small.source_bytes)
    assert first.estimate_basis.startswith("1 job with gguf Q8_0 on this server's CPU")
    jobs.add(large, 4.0)
    rate = (small.source_bytes + large.source_bytes) / 6.0
    second = jobs.estimate(large)
    assert second.estimated_duration == pytest.approx(large.source_bytes / rate)
    assert second.estimate_basis.startswith("2 jobs")
    for _ in range(REMEMBERED_JOBS):
        jobs.add(large, 8.0)
    assert jobs.estimate(large).estimated_duration == pytest.approx(8.0)


def test_a_time_of_zero_is_no_measurement(source) -> None:
    plan = plan_of(source, "gguf")
    jobs = FinishedJobs()
    jobs.add(plan, 0.0)
    assert jobs.estimate(plan) == plan
