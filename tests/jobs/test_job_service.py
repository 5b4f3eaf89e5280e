"""Jobs with real workers: submitting, watching, cancelling, deleting, dying, stopping."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import uuid
from pathlib import Path

import pytest

from quantd_server.errors import QuantdError
from quantd_server.jobs.job import JobFilter


def assert_whole(events, first: int = 1) -> None:
    """Sequences without gaps from ``first`` on; the last event is the finished job."""
    logged = [event for event in events if event.heartbeat is None]
    assert [event.sequence for event in logged] == list(range(first, first + len(logged)))
    last = logged[-1].snapshot
    assert last.finished
    assert last.last_sequence == logged[-1].sequence
    for event in logged:
        kinds = [event.snapshot, event.stage, event.tensor, event.warning, event.heartbeat]
        assert sum(kind is not None for kind in kinds) == 1


def states(events) -> list[str]:
    return [event.snapshot.state for event in events if event.snapshot is not None]


async def test_a_job_from_its_submission_to_its_result(harness) -> None:
    job = await harness.submit(labels={"team": "a"})
    assert job.labels == {"team": "a"}
    assert harness.service.get(job.name).name == job.name
    events = await harness.events(job.name)
    assert_whole(events)
    assert states(events) == ["QUEUED", "RUNNING", "SUCCEEDED"]
    stages = [event.stage.stage for event in events if event.stage is not None]
    assert stages == ["PREPARING", "QUANTIZING", "FINALIZING"]
    assert len([event for event in events if event.tensor is not None]) == 20
    done = events[-1].snapshot
    assert done == harness.service.get(job.name)
    assert done.create_time <= done.start_time <= done.end_time
    assert done.error is None
    assert done.result.output_uri == str(harness.folder / "output")
    assert done.progress.tensors_done == 20
    assert (harness.folder / "output" / "model.safetensors").exists()
    assert harness.left() == ["output"]
    assert [entry["event"] for entry in harness.log] == ["job.queued", "job.started", "job.ended"]


async def test_a_job_that_fails_says_why(harness, tmp_path) -> None:
    job = await harness.submit()
    # Occupied after the plan was made.
    (harness.folder / "output").mkdir()
    (harness.folder / "output" / "mine").touch()
    events = await harness.events(job.name)
    assert_whole(events)
    assert events[-1].snapshot.state == "FAILED"
    assert events[-1].snapshot.error.reason == "OUTPUT_NOT_EMPTY"
    assert harness.left() == ["output"]


async def test_watching_from_the_middle_and_from_the_end(harness) -> None:
    job = await harness.submit()
    events = await harness.events(job.name)
    for after in (1, 7, len(events) - 1):
        assert await harness.events(job.name, after) == events[after:]
    assert await harness.events(job.name, len(events)) == []


async def test_many_watchers_at_their_own_places_see_the_same(harness) -> None:
    job = await harness.submit()

    async def slowly():
        seen = []
        async for event in harness.service.watch(job.name, 0):
            seen.append(event)
            await asyncio.sleep(0.01)
        return seen

    at_once = [harness.events(job.name) for _ in range(5)]
    everybody = await asyncio.gather(*at_once, slowly(), harness.events(job.name, 1))
    for events in everybody[:-1]:
        assert events == everybody[0]
        assert_whole(events)
    assert everybody[-1] == everybody[0][1:]


async def test_a_watcher_that_leaves_does_not_stop_the_job(harness) -> None:
    job = await harness.submit()
    watcher = harness.service.watch(job.name, 0)
    await anext(watcher)
    await watcher.aclose()
    assert (await harness.events(job.name))[-1].snapshot.state == "SUCCEEDED"


async def test_a_snapshot_stands_for_events_that_are_gone(make_harness) -> None:
    harness = make_harness(max_events=6)
    job = await harness.submit()
    await harness.events(job.name)
    last = harness.service.get(job.name).last_sequence
    for after in (0, 1, last - 7):
        (event,) = await harness.events(job.name, after)
        assert event.sequence == last
        assert event.snapshot.state == "SUCCEEDED"
    kept = await harness.events(job.name, last - 6)
    assert [event.sequence for event in kept] == list(range(last - 5, last + 1))


async def test_watching_beyond_the_end(harness) -> None:
    job = await harness.submit()
    with pytest.raises(QuantdError) as caught:
        await harness.events(job.name, 100)
    assert (caught.value.reason, caught.value.kind) == ("SEQUENCE_OUT_OF_RANGE", "out_of_range")
    await harness.events(job.name)


async def test_heartbeats_while_nothing_happens(make_harness) -> None:
    harness = make_harness(heartbeat_interval=0.05)
    running = await harness.submit(slow=True)
    waiting = await harness.submit("other")
    beats = []
    async for event in harness.service.watch(waiting.name, 0):
        if event.heartbeat is not None:
            beats.append(event)
        if len(beats) == 3:
            break
    assert {event.sequence for event in beats} == {1}
    await harness.service.cancel(running.name, "")
    assert_whole(await harness.events(waiting.name))


async def test_a_job_that_does_not_exist(harness) -> None:
    name = f"jobs/{uuid.uuid4()}"

    async def get() -> None:
        harness.service.get(name)

    for call in (
        get(),
        harness.service.cancel(name, ""),
        harness.service.delete(name, delete_output=False),
        harness.events(name),
    ):
        with pytest.raises(QuantdError) as caught:
            await call
        assert (caught.value.reason, caught.value.kind) == ("JOB_NOT_FOUND", "not_found")


# -- the queue -----------------------------------------------------------------------------------


async def test_a_new_job_can_be_looked_at_at_once(harness) -> None:
    job = await harness.submit()
    assert harness.service.get(job.name).queue_position == 0
    assert [each.name for each in (await harness.service.list(JobFilter())).jobs] == [job.name]
    await harness.events(job.name)


async def test_places_in_the_queue(harness) -> None:
    first = await harness.submit("a", slow=True)
    waiting = [await harness.submit(name) for name in "bcd"]
    positions = [harness.service.get(job.name).queue_position for job in waiting]
    assert positions == [0, 1, 2]
    await harness.service.cancel(waiting[0].name, "")
    await harness.service.cancel(first.name, "")
    ends = [(await harness.events(job.name))[-1].snapshot for job in waiting]
    assert [job.state for job in ends] == ["CANCELLED", "SUCCEEDED", "SUCCEEDED"]
    assert ends[1].end_time <= ends[2].start_time
    assert harness.left() == ["c", "d"]


@pytest.mark.parametrize("part", [1.5, 2.5])
async def test_jobs_run_together_where_their_memory_suffices(make_harness, part) -> None:
    probe = make_harness()
    job = await probe.submit("probe")
    await probe.events(job.name)
    budget = int(part * job.plan.peak_memory_bytes)
    harness = make_harness(max_running=3, memory_bytes=budget)
    jobs = [await harness.submit(name) for name in "abc"]
    ends = [(await harness.events(job.name))[-1].snapshot for job in jobs]
    assert [job.state for job in ends] == ["SUCCEEDED"] * 3
    together = max(
        sum(each.start_time <= job.start_time < each.end_time for each in ends) for job in ends
    )
    assert together == int(part)


async def test_a_job_that_takes_more_memory_than_there_is_runs_alone(make_harness) -> None:
    harness = make_harness(max_running=2, memory_bytes=1)
    jobs = [await harness.submit(name) for name in "ab"]
    first, second = [(await harness.events(job.name))[-1].snapshot for job in jobs]
    assert first.end_time <= second.start_time
    assert second.state == "SUCCEEDED"


async def test_callers_take_turns(make_harness) -> None:
    harness = make_harness()
    busy = await harness.submit("busy", slow=True, owner="ann")
    jobs = [await harness.submit(f"a{number}", owner="ann") for number in range(2)]
    jobs.append(await harness.submit("b", owner="bob"))
    assert [harness.service.get(job.name).queue_position for job in jobs] == [1, 2, 0]
    await harness.service.cancel(busy.name, "")
    ends = [(await harness.events(job.name))[-1].snapshot for job in jobs]
    assert ends[2].end_time <= ends[0].start_time
    assert ends[0].end_time <= ends[1].start_time


async def test_a_full_queue(make_harness) -> None:
    harness = make_harness(max_queued=2)
    jobs = [
        await harness.submit("a", slow=True),
        await harness.submit("b"),
        await harness.submit("c"),
    ]
    with pytest.raises(QuantdError) as caught:
        await harness.submit("d")
    assert (caught.value.reason, caught.value.kind) == ("QUEUE_FULL", "exhausted")
    assert 1 <= caught.value.retry_delay <= 600
    for job in jobs:
        await harness.service.cancel(job.name, "")
    await harness.submit("d")


async def test_several_run_at_once(make_harness) -> None:
    harness = make_harness(max_running=2)
    jobs = [await harness.submit(name, slow=True) for name in "ab"]
    for job in jobs:
        await harness.until(job.name, "tensor")
    assert [harness.service.get(job.name).state for job in jobs] == ["RUNNING", "RUNNING"]
    for job in jobs:
        await harness.service.cancel(job.name, "")


async def test_an_output_that_another_job_is_going_to_write(harness) -> None:
    job = await harness.submit()
    with pytest.raises(QuantdError) as caught:
        await harness.submit()
    assert caught.value.reason == "OUTPUT_IN_USE"
    assert job.name in caught.value.message
    await harness.events(job.name)


# -- idempotency ---------------------------------------------------------------------------------


async def test_the_same_request_id_gives_the_same_job(harness) -> None:
    request_id = str(uuid.uuid4())
    job = await harness.submit(request_id=request_id, labels={"a": "b"})
    again = await harness.submit(request_id=request_id, labels={"a": "b"})
    assert again.name == job.name
    await harness.events(job.name)
    assert len((await harness.service.list(JobFilter())).jobs) == 1
    # The output exists by now; the same request still means that job.
    spec = harness.service._records[job.name].stored.requested
    assert harness.service.find_request(request_id, spec, {"a": "b"}).state == "SUCCEEDED"


@pytest.mark.parametrize(
    "change",
    [{"labels": {"a": "c"}}, {"output": "other"}, {"allow_non_finite": True}],
)
async def test_a_request_id_for_another_request(harness, change) -> None:
    request_id = str(uuid.uuid4())
    job = await harness.submit(request_id=request_id, labels={"a": "b"})
    with pytest.raises(QuantdError) as caught:
        await harness.submit(**({"request_id": request_id, "labels": {"a": "b"}} | change))
    assert (caught.value.reason, caught.value.kind) == ("REQUEST_ID_REUSED", "exists")
    await harness.events(job.name)


async def test_a_request_id_is_free_again_when_its_job_is_deleted(harness) -> None:
    running = await harness.submit("a", slow=True)
    request_id = str(uuid.uuid4())
    job = await harness.submit(request_id=request_id)
    await harness.service.cancel(job.name, "")
    await harness.service.delete(job.name, delete_output=True)
    again = await harness.submit("other", request_id=request_id)
    assert again.name != job.name
    for each in (again, running):
        await harness.service.cancel(each.name, "")


# -- cancelling ----------------------------------------------------------------------------------


async def test_cancelling_a_running_job(harness) -> None:
    job = await harness.submit(slow=True)
    await harness.until(job.name, "tensor")
    assert harness.left()
    asked = await harness.service.cancel(job.name, "changed my mind")
    assert asked.state == "CANCELLING"
    events = await harness.events(job.name)
    assert_whole(events)
    assert states(events) == ["QUEUED", "RUNNING", "CANCELLING", "CANCELLED"]
    assert events[-1].snapshot.error.reason == "CANCELLED"
    assert "changed my mind" in events[-1].snapshot.error.message
    assert not harness.left()


async def test_cancelling_a_queued_job(harness) -> None:
    running = await harness.submit("a", slow=True)
    queued = await harness.submit("b")
    assert (await harness.service.cancel(queued.name, "")).state == "CANCELLED"
    events = await harness.events(queued.name)
    assert states(events) == ["QUEUED", "CANCELLED"]
    assert_whole(events)
    await harness.service.cancel(running.name, "")


async def test_cancelling_at_once(harness) -> None:
    job = await harness.submit(slow=True)
    await harness.service.cancel(job.name, "")
    events = await harness.events(job.name)
    assert_whole(events)
    assert states(events)[-2:] == ["CANCELLING", "CANCELLED"]
    assert not harness.left()


async def test_cancelling_while_the_worker_starts(harness) -> None:
    job = await harness.submit(slow=True)
    while harness.service._records[job.name].worker is None:  # noqa: ASYNC110 -- soon
        await asyncio.sleep(0)
    await harness.service.cancel(job.name, "")
    events = await harness.events(job.name)
    assert states(events) == ["QUEUED", "RUNNING", "CANCELLING", "CANCELLED"]
    assert not harness.left()


async def test_cancelling_twice_or_too_late_is_no_error(harness) -> None:
    job = await harness.submit(slow=True)
    await harness.until(job.name, "stage")
    await harness.service.cancel(job.name, "first")
    assert (await harness.service.cancel(job.name, "second")).state == "CANCELLING"
    end = (await harness.events(job.name))[-1].snapshot
    assert "first" in end.error.message
    assert await harness.service.cancel(job.name, "third") == end
    done = await harness.submit()
    await harness.events(done.name)
    assert (await harness.service.cancel(done.name, "")).state == "SUCCEEDED"
    assert harness.left() == ["output"]


# -- deleting ------------------------------------------------------------------------------------


async def test_deleting_a_job_keeps_its_output_unless_asked(harness) -> None:
    job = await harness.submit()
    await harness.events(job.name)
    await harness.service.delete(job.name, delete_output=False)
    with pytest.raises(QuantdError):
        harness.service.get(job.name)
    assert harness.left() == ["output"]


async def test_deleting_a_job_with_its_output(harness) -> None:
    job = await harness.submit()
    await harness.events(job.name)
    await harness.service.delete(job.name, delete_output=True)
    assert not harness.left()


async def test_deleting_takes_only_what_the_job_made(harness) -> None:
    job = await harness.submit()
    await harness.events(job.name)
    (harness.folder / "output" / "notes.txt").touch()
    await harness.service.delete(job.name, delete_output=True)
    assert [path.name for path in (harness.folder / "output").iterdir()] == ["notes.txt"]


async def test_deleting_an_output_that_is_gone(harness) -> None:
    job = await harness.submit()
    await harness.events(job.name)
    (harness.folder / "output").rename(harness.folder / "moved")
    (harness.folder / "config.json").touch()  # a file of another's by the same name
    await harness.service.delete(job.name, delete_output=True)
    assert harness.left() == ["config.json", "moved"]


async def test_an_output_that_cannot_be_deleted(harness, monkeypatch) -> None:
    job = await harness.submit()
    await harness.events(job.name)
    (harness.folder / "output" / "config.json").unlink()
    (harness.folder / "output" / "config.json").mkdir()  # a folder of another's

    def refuse(path, **options) -> None:
        raise PermissionError(errno.EACCES, "no")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        with pytest.raises(QuantdError) as caught:
            await harness.service.delete(job.name, delete_output=True)
    assert (caught.value.reason, caught.value.kind) == ("OUTPUT_NOT_WRITABLE", "precondition")
    assert harness.service.get(job.name).state == "SUCCEEDED"
    await harness.service.delete(job.name, delete_output=True)
    assert [path.name for path in (harness.folder / "output").iterdir()] == ["config.json"]


async def test_deleting_a_file_and_the_record_beside_it(harness, small) -> None:
    job = await harness.submit(slow=True)
    await harness.events(job.name)
    assert harness.left() == ["output.gguf", "output.gguf.quantd.json"]
    await harness.service.delete(job.name, delete_output=True)
    assert not harness.left()


async def test_a_running_job_cannot_be_deleted(harness) -> None:
    job = await harness.submit(slow=True)
    with pytest.raises(QuantdError) as caught:
        await harness.service.delete(job.name, delete_output=True)
    assert (caught.value.reason, caught.value.kind) == ("JOB_NOT_FINISHED", "precondition")
    await harness.service.cancel(job.name, "")


# -- listing -------------------------------------------------------------------------------------


async def test_listing(harness) -> None:
    first = await harness.submit("a", labels={"team": "x", "tier": "1"})
    await harness.events(first.name)
    second = await harness.submit("b", slow=True, labels={"team": "x"})
    third = await harness.submit("c")

    async def names(**wanted) -> list[str]:
        page = await harness.service.list(JobFilter(**wanted))
        return [job.name for job in page.jobs]

    assert await names() == [third.name, second.name, first.name]
    assert await names(labels={"team": "x"}) == [second.name, first.name]
    assert await names(labels={"team": "x", "tier": "1"}) == [first.name]
    assert await names(labels={"team": "y"}) == []
    assert await names(states=frozenset({"SUCCEEDED", "QUEUED"})) == [third.name, first.name]
    assert await names(methods=frozenset({"gguf"})) == [second.name]
    assert await names(created_from=second.create_time) == [third.name, second.name]
    assert await names(created_until=second.create_time) == [first.name]
    await harness.service.cancel(second.name, "")


async def test_only_so_many_finished_jobs_are_kept(make_harness) -> None:
    harness = make_harness(max_finished=2)
    running = await harness.submit("a", slow=True)
    jobs = [await harness.submit(name) for name in "bcde"]
    for job in jobs:
        await harness.service.cancel(job.name, "")
    kept = [job.name for job in (await harness.service.list(JobFilter())).jobs]
    assert kept == [jobs[3].name, jobs[2].name, running.name]
    await harness.service.cancel(running.name, "")


async def test_none_kept_still_ends_its_watchers(make_harness) -> None:
    harness = make_harness(max_finished=0)
    job = await harness.submit()
    assert_whole(await harness.events(job.name))
    assert (await harness.service.list(JobFilter())).jobs == []


# -- dying and stopping --------------------------------------------------------------------------


async def signal_each_worker(harness, job, number: int) -> list:
    """Ends each worker of a job with a signal once it has reported a tensor; all its events."""
    seen, hit = [], set()
    async for event in harness.service.watch(job.name, 0):
        seen.append(event)
        worker = harness.service._records[job.name].worker
        if event.tensor is not None and worker is not None and worker.pid not in hit:
            assert harness.left()
            hit.add(worker.pid)
            os.kill(worker.pid, number)
    return seen


def warned(events) -> list[str]:
    return [event.warning.reason for event in events if event.warning is not None]


async def test_a_worker_that_is_killed_twice_fails_its_job_and_leaves_nothing(harness) -> None:
    job = await harness.submit(slow=True)
    events = await signal_each_worker(harness, job, signal.SIGKILL)
    assert_whole(events)
    assert states(events) == ["QUEUED", "RUNNING", "QUEUED", "RUNNING", "FAILED"]
    assert warned(events) == ["JOB_RETRIED"]
    error = events[-1].snapshot.error
    assert (error.reason, error.kind) == ("WORKER_KILLED", "exhausted")
    assert not harness.left()
    # The next one runs.
    assert (await harness.events((await harness.submit()).name))[-1].snapshot.state == "SUCCEEDED"


async def test_a_job_whose_worker_was_killed_once_is_done_all_the_same(harness) -> None:
    undisturbed = await harness.submit("other", slow=True)
    await harness.events(undisturbed.name)
    job = await harness.submit(slow=True)
    await harness.until(job.name, "tensor")
    os.kill(harness.service._records[job.name].worker.pid, signal.SIGKILL)
    events = await harness.events(job.name)
    assert_whole(events)
    done = events[-1].snapshot
    assert done.state == "SUCCEEDED"
    assert warned(events) == ["JOB_RETRIED"]
    assert [finding.reason for finding in done.findings] == ["JOB_RETRIED"]
    assert done.progress.tensors_done == done.progress.tensors_total
    written = [(harness.folder / f"{name}.gguf").read_bytes() for name in ("other", "output")]
    assert written[0] == written[1]


async def test_a_worker_that_crashes_three_times(harness) -> None:
    job = await harness.submit(slow=True)
    events = await signal_each_worker(harness, job, signal.SIGSEGV)
    assert warned(events) == ["JOB_RETRIED", "JOB_RETRIED"]
    error = events[-1].snapshot.error
    assert error.reason == "WORKER_DIED"
    assert str(int(signal.SIGSEGV)) in error.message
    assert not harness.left()


async def test_stopping_ends_everything_with_a_last_event(harness) -> None:
    done = await harness.submit("a")
    await harness.events(done.name)
    running = await harness.submit("b", slow=True)
    queued = await harness.submit("c")
    await harness.until(running.name, "tensor")
    watchers = [asyncio.create_task(harness.events(job.name)) for job in (running, queued)]
    await asyncio.sleep(0)
    await harness.service.stop(10)
    for events in await asyncio.wait_for(asyncio.gather(*watchers), 5):
        assert_whole(events)
        last = events[-1].snapshot
        assert (last.state, last.error.reason) == ("FAILED", "SERVER_STOPPED")
    assert harness.service.get(done.name).state == "SUCCEEDED"
    assert harness.left() == ["a"]
    with pytest.raises(QuantdError) as caught:
        await harness.submit("d")
    assert (caught.value.reason, caught.value.kind) == ("SHUTTING_DOWN", "unavailable")


async def test_a_worker_that_does_not_stop_is_killed(harness) -> None:
    job = await harness.submit(slow=True)
    await harness.until(job.name, "tensor")
    os.kill(harness.service._records[job.name].worker.pid, signal.SIGSTOP)
    await harness.service.stop(0.2)
    last = (await harness.events(job.name))[-1].snapshot
    assert (last.state, last.error.reason) == ("FAILED", "SERVER_STOPPED")
    assert not harness.left()


async def test_stopping_with_nothing_to_do(harness) -> None:
    await harness.service.stop(1)
    await harness.service.stop(1)
