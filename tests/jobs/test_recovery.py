"""A job service that takes over the jobs of another one that was killed at some point."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import msgspec
import pytest
from tests.quantizing import planned, run, specification, work_order

from quantd_server.errors import QuantdError
from quantd_server.jobs.job import Job, JobEvent, JobFilter, StoredJob
from quantd_server.jobs.state_folder import StateFolder
from quantd_server.jobs.store import Change, JobStore
from quantd_server.jobs.worker_death import (
    MAX_ATTEMPTS,
    MAX_FUTILE_ATTEMPTS,
    cause_of_death,
    fault,
    may_retry,
)

METHODS = {"bitsandbytes_4bit": "output", "gguf": "output.gguf"}


@pytest.fixture
def path(tmp_path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state" / "jobs"


@pytest.fixture
def stored(tmp_path, small):
    """Makes what a server had stored of a job whose worker it started."""

    def make(method: str = "bitsandbytes_4bit", **fields) -> StoredJob:
        (tmp_path / "out").mkdir(exist_ok=True)
        spec = specification(small, tmp_path / "out" / METHODS[method], method)
        report = planned(spec)
        job = Job(
            name=f"jobs/{uuid.uuid4()}",
            spec=report.spec,
            plan=report.plan,
            create_time=1.0,
            start_time=2.0,
            state=fields.pop("state", "RUNNING"),
            last_sequence=2,
        )
        return msgspec.structs.replace(
            StoredJob(
                job=job,
                requested=spec,
                source_path=report.source_path,
                output_path=report.output_path,
                paths=report.paths,
                source_fingerprint=report.source_fingerprint,
                attempts=1,
            ),
            **fields,
        )

    return make


def put(path: Path, stored: StoredJob) -> None:
    """Stores the job as its second event shows it."""
    store = JobStore(path, max_events=1000)
    queued = msgspec.structs.replace(stored.job, state="QUEUED", last_sequence=1)
    for job in (queued, stored.job):
        document = msgspec.structs.replace(stored, job=job)
        event = JobEvent(sequence=job.last_sequence, time=1.0, snapshot=job)
        store.commit([Change(name=job.name, job=document, event=event)])
    store.close()


def left(tmp_path: Path) -> list[str]:
    return sorted(entry.name for entry in (tmp_path / "out").iterdir())


async def recovered(make_harness, path: Path, name: str, **limits) -> list[JobEvent]:
    """All events of a job after another service took it over."""
    harness = make_harness(store=JobStore(path, max_events=1000), **limits)
    await harness.service.start()
    events = await harness.events(name)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    return events


def states(events) -> list[str]:
    return [event.snapshot.state for event in events if event.snapshot is not None]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("state", ["RUNNING", "CANCELLING"])
async def test_an_output_that_was_published_is_a_success(
    tmp_path, path, stored, make_harness, method, state
):
    """Killed after the last rename, before the result was stored."""
    job = stored(method, state=state)
    order = msgspec.structs.replace(
        work_order(planned(job.requested), job_id=job.job.name.removeprefix("jobs/")),
        recoverable=True,
    )
    result = run(order)[-1]
    published = left(tmp_path)
    assert any(name.startswith(".") for name in published)
    put(path, job)
    events = await recovered(make_harness, path, job.job.name)
    assert states(events) == ["QUEUED", state, "SUCCEEDED"]
    assert events[-1].snapshot.result.files == result.files
    assert left(tmp_path) == [name for name in published if not name.startswith(".")]


@pytest.mark.parametrize("method", METHODS)
async def test_an_output_that_was_not_published_is_made_again(
    tmp_path, path, stored, make_harness, method
):
    """Killed between the receipt and the rename."""
    job = stored(method)
    order = msgspec.structs.replace(
        work_order(planned(job.requested), job_id=job.job.name.removeprefix("jobs/")),
        recoverable=True,
    )
    result = run(order)[-1]
    final = tmp_path / "out" / METHODS[method]
    (hidden,) = (tmp_path / "out").glob(".*")
    if final.is_dir():
        final.rename(hidden / "output")
    else:
        final.unlink()  # a link; the other one is in there
    put(path, job)
    events = await recovered(make_harness, path, job.job.name)
    assert states(events) == ["QUEUED", "RUNNING", "QUEUED", "RUNNING", "SUCCEEDED"]
    assert events[-1].snapshot.result.files == result.files
    assert events[2].warning.reason == "JOB_RETRIED"
    assert not list((tmp_path / "out").glob(".*"))


async def test_the_result_is_stored_before_its_receipt_goes(tmp_path, path, stored, make_harness):
    """Killed between that and the last event."""
    job = stored()
    result = run(work_order(planned(job.requested)))[-1]
    put(path, msgspec.structs.replace(job, job=msgspec.structs.replace(job.job, result=result)))
    events = await recovered(make_harness, path, job.job.name)
    assert states(events) == ["QUEUED", "RUNNING", "SUCCEEDED"]
    assert events[-1].snapshot.result == result


async def test_as_many_attempts_as_there_may_be(tmp_path, path, stored, make_harness):
    job = stored(attempts=7, futile_attempts=MAX_FUTILE_ATTEMPTS - 1)
    put(path, job)
    events = await recovered(make_harness, path, job.job.name)
    assert states(events) == ["QUEUED", "RUNNING", "FAILED"]
    assert events[-1].snapshot.error.reason == "TOO_MANY_ATTEMPTS"


async def test_more_attempts_than_anybody_should_need(tmp_path, path, stored, make_harness):
    job = stored(attempts=MAX_ATTEMPTS, futile_attempts=0)
    put(path, job)
    events = await recovered(make_harness, path, job.job.name)
    assert events[-1].snapshot.error.reason == "TOO_MANY_ATTEMPTS"
    assert str(MAX_ATTEMPTS) in events[-1].snapshot.error.message


async def test_what_was_being_cancelled_is(tmp_path, path, stored, make_harness):
    cause = fault("CANCELLED", "cancelled by a client", "", "cancelled")
    job = stored(state="CANCELLING", stop_cause=cause, futile_attempts=MAX_FUTILE_ATTEMPTS)
    put(path, job)
    events = await recovered(make_harness, path, job.job.name)
    assert states(events) == ["QUEUED", "CANCELLING", "CANCELLED"]
    assert events[-1].snapshot.error == cause


async def test_a_job_that_the_server_may_no_longer_run(tmp_path, path, stored, make_harness):
    job = stored()
    put(path, job)
    harness = make_harness(store=JobStore(path, max_events=1000))

    def refuse(stored: StoredJob) -> None:
        raise QuantdError(reason="PATH_OUTSIDE_ROOTS", message=stored.output_path)

    await harness.service.start(refuse)
    events = await harness.events(job.job.name)
    assert states(events) == ["QUEUED", "RUNNING", "FAILED"]
    assert events[-1].snapshot.error.reason == "PATH_OUTSIDE_ROOTS"


async def test_jobs_that_are_kept_and_dropped(path, make_harness):
    first = make_harness(store=JobStore(path, max_events=4), max_events=4, max_finished=2)
    await first.service.start()
    jobs = [await first.submit(name) for name in "abc"]
    for job in jobs:
        await first.events(job.name)
    kept = (await first.service.list(JobFilter())).jobs
    assert [job.name for job in kept] == [jobs[2].name, jobs[1].name]
    await first.service.stop(1)
    second = make_harness(store=JobStore(path, max_events=4), max_events=4, max_finished=1)
    await second.service.start()
    assert (await second.service.list(JobFilter())).jobs == kept[:1]
    last = kept[0].last_sequence
    assert [event.sequence for event in await second.events(jobs[2].name, last - 4)] == [
        *range(last - 3, last + 1)
    ]
    (instead,) = await second.events(jobs[2].name, 0)
    assert (instead.sequence, instead.snapshot) == (last, kept[0])


# -- a store that cannot be written --------------------------------------------------------------


async def test_a_full_disk_holds_events_back_and_loses_none(path, make_harness, monkeypatch):
    monkeypatch.setattr("quantd_server.jobs.journal.RETRY_DELAY", 0.02)
    store = JobStore(path, max_events=1000)
    harness = make_harness(store=store)
    await harness.service.start()
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    submitted = asyncio.create_task(harness.submit(labels={str(n): "x" * 200 for n in range(64)}))
    while not [line for line in harness.log if line["event"] == "store.failed"]:  # noqa: ASYNC110 -- soon
        await asyncio.sleep(0.01)
    assert (await harness.service.list(JobFilter())).jobs == []
    with pytest.raises(QuantdError) as caught:
        await harness.submit("other")
    assert (caught.value.reason, caught.value.kind) == ("STATE_NOT_WRITABLE", "unavailable")
    assert not submitted.done()
    store._connection.execute("PRAGMA max_page_count = 1000000")
    job = await submitted
    events = await harness.events(job.name)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert states(events)[-1] == "SUCCEEDED"
    assert [line["event"] for line in harness.log].count("store.recovered") == 1


# -- the folder ----------------------------------------------------------------------------------


def no_log(event: str, **fields) -> None:
    raise AssertionError(f"{event}: {fields}")


def test_a_state_folder_belongs_to_one_server(tmp_path):
    first = StateFolder(str(tmp_path / "state"), no_log)
    with pytest.raises(QuantdError) as caught:
        StateFolder(str(tmp_path / "state"), no_log)
    assert caught.value.reason == "STATE_IN_USE"
    first.close()
    StateFolder(str(tmp_path / "state"), no_log).close()


def test_a_state_folder_waits_for_the_workers_of_the_server_before(tmp_path):
    first = StateFolder(str(tmp_path / "state"), no_log)
    log: list[str] = []

    def note(event: str, **fields) -> None:
        log.append(event)

    lock = first.workers_lock
    program = "import time; print(flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", program], pass_fds=(lock,), stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdout.readline()
        first.close()
        with pytest.raises(QuantdError) as caught:
            StateFolder(str(tmp_path / "state"), note, patience=0.1)
        assert caught.value.reason == "STATE_IN_USE"
        assert "worker" in caught.value.message
        worker.send_signal(signal.SIGKILL)
    assert log == ["state.waiting"]
    StateFolder(str(tmp_path / "state"), note, patience=5).close()


async def test_workers_hold_the_lock(tmp_path, make_harness):
    folder = StateFolder(str(tmp_path / "state"), no_log)
    store = JobStore(folder.store, max_events=1000)
    harness = make_harness(store=store, workers_lock=folder.workers_lock)
    job = await harness.submit(slow=True)
    await harness.until(job.name, "tensor")
    folder.close()
    lock = os.open(tmp_path / "state" / "workers.lock", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    await harness.service.cancel(job.name, "")
    await harness.events(job.name)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(lock)


@pytest.mark.parametrize("name", ["missing/state", "file"])
def test_a_state_folder_that_cannot_be_made(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(QuantdError) as caught:
        StateFolder(str(tmp_path / name), no_log)
    assert caught.value.reason == "STATE_NOT_WRITABLE"
    assert str(tmp_path) not in caught.value.message


# -- workers that die ----------------------------------------------------------------------------


def test_which_deaths_are_worth_another_attempt():
    def after(returncode, *futile: int, attempts: int = 7) -> list[bool]:
        return [may_retry(returncode, futile=each, attempts=attempts) for each in futile]

    assert after(-signal.SIGSEGV, 0, 1, 2, 3) == [True, True, True, False]
    assert after(-signal.SIGKILL, 0, 1, 2) == [True, True, False]
    assert after(2, 0, 1, 2, 3) == [True, True, True, False]
    assert after(1, 0) == after(None, 0) == [False]
    assert after(-signal.SIGKILL, 0, attempts=MAX_ATTEMPTS) == [False]


def test_what_is_said_of_a_death():
    killed = -signal.SIGKILL
    assert cause_of_death(killed, killed_for_memory=True).reason == "KILLED_FOR_MEMORY"
    assert cause_of_death(killed, killed_for_memory=False).reason == "WORKER_KILLED"
    assert cause_of_death(-signal.SIGSEGV, killed_for_memory=True).reason == "WORKER_DIED"
    assert "status 3" in cause_of_death(3, killed_for_memory=False).message
