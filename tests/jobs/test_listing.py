"""Listings: what SQL finds is what the filter means, and pages lose nothing."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.api.servers import PLAN, SPEC

from quantd_server.jobs.job import JOB_STATES, Job, JobEvent, JobFilter, StoredJob
from quantd_server.jobs.store import Change, JobStore
from quantd_server.methods.configs import Bitsandbytes8BitConfig, MethodConfig

METHODS = {
    "gguf": SPEC.method,
    "bitsandbytes_8bit": MethodConfig(bitsandbytes_8bit=Bitsandbytes8BitConfig()),
}
TIMES = st.sampled_from([1.0, 2.0, 2.5, 3.0])
LABELS = st.dictionaries(st.sampled_from(["a", "b", "", "'"]), st.sampled_from(["", "x", "%"]))
OWNERS = st.sampled_from(["", "ci", "nightly"])

JOBS = st.builds(
    Job,
    name=st.just(""),
    spec=st.sampled_from(
        [msgspec.structs.replace(SPEC, method=method) for method in METHODS.values()]
    ),
    plan=st.just(PLAN),
    owner=OWNERS,
    labels=LABELS,
    state=st.sampled_from(JOB_STATES),
    create_time=TIMES,
)
FILTERS = st.builds(
    JobFilter,
    states=st.frozensets(st.sampled_from([*JOB_STATES, "NONE"])),
    methods=st.frozensets(st.sampled_from([*METHODS, "awq"])),
    labels=LABELS,
    created_from=st.none() | TIMES,
    created_until=st.none() | TIMES,
)


def put(store: JobStore, job: Job, sequence: int = 1) -> None:
    job = msgspec.structs.replace(job, last_sequence=sequence)
    stored = StoredJob(
        job=job,
        requested=SPEC,
        source_path="/a",
        output_path="/b",
        paths={},
        source_fingerprint="",
    )
    event = JobEvent(sequence=sequence, time=0.0, snapshot=job)
    store.commit([Change(name=job.name, job=stored, event=event)])


@settings(max_examples=200, deadline=None)
@given(
    jobs=st.lists(JOBS, max_size=8),
    wanted=FILTERS,
    owner=st.none() | OWNERS,
    size=st.integers(1, 4),
)
def test_pages_have_what_the_filter_means(jobs, wanted, owner, size):
    store = JobStore(None, max_events=10)
    jobs = [msgspec.structs.replace(job, name=f"jobs/{n}") for n, job in enumerate(jobs)]
    for job in jobs:
        put(store, job)
    seen, before = [], 0
    while page := store.page(wanted, owner=owner, before=before, limit=size):
        assert len(page) <= size
        seen += [name for _, name in page]
        before = page[-1][0]
    assert seen == [
        job.name for job in reversed(jobs) if wanted.matches(job) and owner in (None, job.owner)
    ]
    store.close()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["new", "forget", "page"]), max_size=30))
def test_jobs_that_come_and_go_shift_no_page(steps):
    store = JobStore(None, max_events=10)
    job = Job(name="", spec=SPEC, plan=PLAN, create_time=1.0)
    names = [f"jobs/{n}" for n in range(6)]
    for name in names:
        put(store, msgspec.structs.replace(job, name=name))
    stay, seen, before, count = set(names), [], 0, len(names)
    for step in [*steps, *["page"] * 40]:
        if step == "new":
            put(store, msgspec.structs.replace(job, name=f"jobs/{count}"))
            count += 1
        elif step == "forget" and stay - set(seen):
            name = max(stay - set(seen))
            stay.remove(name)
            store.commit([Change(name=name, job=None)])
        elif step == "page" and (before or not seen):
            page = store.page(JobFilter(), owner=None, before=before, limit=2)
            seen += [name for _, name in page]
            before = page[-1][0] if page else 0
    assert len(seen) == len(set(seen))
    assert stay <= set(seen)
    store.close()


async def test_a_page_of_a_service_and_the_one_after(harness):
    jobs = [await harness.submit("slow", slow=True, owner="ci")]
    jobs += [await harness.submit(name, owner=owner) for name, owner in ("ab", "cd", "ed")]
    first = await harness.service.list(JobFilter(), limit=2)
    assert [job.name for job in first.jobs] == [jobs[3].name, jobs[2].name]
    assert [job.queue_position for job in first.jobs] == [2, 1]  # as it is now, not as stored
    await harness.service.cancel(jobs[1].name, "")
    second = await harness.service.list(JobFilter(), before=first.next, limit=2)
    assert [(job.name, job.state) for job in second.jobs] == [
        (jobs[1].name, "CANCELLED"),
        (jobs[0].name, "RUNNING"),
    ]
    assert second.next == 0
    mine = await harness.service.list(JobFilter(), owner="d")
    assert [job.name for job in mine.jobs] == [jobs[3].name, jobs[2].name]
    await harness.service.cancel(jobs[0].name, "")
