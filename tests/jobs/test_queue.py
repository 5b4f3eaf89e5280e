"""Whose turn it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quantd_server.engine.specification import QuantizationSpec
from quantd_server.jobs.event_log import EventLog
from quantd_server.jobs.job import Job, StoredJob
from quantd_server.jobs.queue import JobQueue
from quantd_server.jobs.record import JobRecord
from quantd_server.methods.configs import Bitsandbytes8BitConfig, MethodConfig
from quantd_server.planning.report import Plan


def record(name: str) -> JobRecord:
    """A job whose owner is the first letter of its name; "-" is nobody."""
    method = MethodConfig(bitsandbytes_8bit=Bitsandbytes8BitConfig())
    plan = Plan(
        method=method,
        device="CPU",
        types=(),
        parameter_count=0,
        quantized_parameter_count=0,
        source_bytes=0,
        output_bytes=0,
        bits_per_weight=0.0,
        peak_memory_bytes=0,
        scratch_bytes=0,
    )
    spec = QuantizationSpec(source_uri="", method=method)
    job = Job(name=name, owner=name[0].strip("-"), spec=spec, plan=plan, create_time=0.0)
    stored = StoredJob(
        job=job, requested=spec, source_path="", output_path="", paths={}, source_fingerprint=""
    )
    return JobRecord(stored, EventLog(1), lambda change, then: None)


def queue_of(*names: str) -> tuple[JobQueue, dict[str, JobRecord]]:
    queue, records = JobQueue(), {name: record(name) for name in names}
    for each in records.values():
        queue.append(each)
    return queue, records


def drained(queue: JobQueue) -> list[str]:
    names = []
    while (first := queue.first()) is not None:
        names.append(first.job.name)
        queue.take_first()
    return names


def test_without_names_the_first_comes_first():
    queue, _ = queue_of("-1", "-2", "-3")
    assert drained(queue) == ["-1", "-2", "-3"]
    assert queue.first() is None


def test_callers_take_turns():
    queue, _ = queue_of("a1", "a2", "a3", "a4", "b1", "c1", "c2")
    assert drained(queue) == ["a1", "b1", "c1", "a2", "c2", "a3", "a4"]


def test_who_comes_later_does_not_wait_for_all_jobs_of_another():
    queue, _ = queue_of("a1", "a2", "a3")
    queue.take_first()
    queue.append(record("b1"))
    assert drained(queue) == ["b1", "a2", "a3"]


def test_nobody_gains_a_turn_by_having_waited_with_nothing():
    queue, _ = queue_of("a1", "b1")
    assert drained(queue) == ["a1", "b1"]
    for name in ("b2", "a2", "b3", "a3"):
        queue.append(record(name))
    assert drained(queue) == ["a2", "b2", "a3", "b3"]


def test_a_job_that_is_begun_again_is_the_first_of_its_caller():
    queue, records = queue_of("a1", "a2", "b1")
    queue.take_first()
    queue.append_first(records["a1"])
    assert drained(queue) == ["b1", "a1", "a2"]


def test_a_job_that_is_cancelled_leaves():
    queue, records = queue_of("a1", "b1", "b2")
    queue.remove(records["a1"])
    assert records["a1"] not in queue
    assert (len(queue), queue.place(records["a1"]), queue.place(records["b2"])) == (2, None, 1)


@given(st.lists(st.sampled_from("ab-c"), max_size=20), st.integers(0, 8))
def test_places_are_what_comes_to_pass(owners, before):
    queue, records = queue_of(*(f"{owner}{number}" for number, owner in enumerate(owners)))
    taken = []
    for _ in range(min(before, len(owners))):
        taken.append(queue.first())
        queue.take_first()
    places = {name: queue.place(each) for name, each in records.items()}
    assert all(places[each.job.name] is None for each in taken)
    order = drained(queue)
    assert {name: place for name, place in places.items() if place is not None} == {
        name: place for place, name in enumerate(order)
    }
