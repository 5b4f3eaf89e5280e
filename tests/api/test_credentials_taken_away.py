"""A stream that is open ends when its caller's credentials are taken away or changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from tests.api import tokens_on_disk
from tests.api.servers import ScriptedJobs, ScriptedPlanner, running
from tests.api.tokens_on_disk import bearing, entry

from quantd import v1
from quantd_server.api import interceptor
from quantd_server.jobs.job import JobEvent

PAUSE = 0.05


class SlowJobs(ScriptedJobs):
    """Jobs without an end, with an event every now and then."""

    async def watch(self, name: str, after_sequence: int) -> AsyncIterator[JobEvent]:
        job = self.get(name)
        self.open_watches += 1
        try:
            while True:
                after_sequence += 1
                yield JobEvent(sequence=after_sequence, time=2.5, snapshot=job)
                await asyncio.sleep(PAUSE)
        finally:
            self.open_watches -= 1


async def to_its_end(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


async def ending(tmp_path, monkeypatch, before: str, after: str, events: int = 3) -> Any:
    """What ends a stream of an entry after the file of tokens was changed."""
    monkeypatch.setattr(interceptor, "CHECK_INTERVAL", PAUSE)
    admin = entry("admin", "admin")
    path = tokens_on_disk.write(tmp_path / "tokens.toml", before, admin)
    jobs = SlowJobs()
    jobs.add("jobs/1", owner="caller")
    async with running(tmp_path, planner=ScriptedPlanner(), jobs=jobs, tokens=str(path)) as server:
        stub = v1.JobServiceStub(server.channel)
        request = v1.WatchJobRequest(name="jobs/1")
        watch = stub.WatchJob(request, metadata=bearing("caller"), timeout=20)
        other = stub.WatchJob(request, metadata=bearing("admin"), timeout=20)
        for _ in range(events):
            await watch.read()
        tokens_on_disk.write(path, after, admin)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await to_its_end(watch)
        for _ in range(events):
            assert isinstance(await other.read(), v1.WatchJobResponse)
        assert jobs.open_watches == 1, "the other stream, and no more"
        other.cancel()
    return caught.value


async def test_a_token_that_is_taken_away_ends_its_streams_and_no_others(tmp_path, monkeypatch):
    error = await ending(tmp_path, monkeypatch, entry("caller", "submit"), "")
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_token_that_expires_ends_its_streams(tmp_path, monkeypatch):
    expired = entry("caller", "submit", expires=tokens_on_disk.EXPIRED)
    error = await ending(tmp_path, monkeypatch, entry("caller", "submit"), expired)
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("change", ["role", "roots"])
async def test_other_rights_ask_for_another_call(tmp_path, monkeypatch, change):
    after = {
        "role": entry("caller", "read"),
        "roots": entry("caller", "submit", sources=[tmp_path / "own"], outputs=[tmp_path / "own"]),
    }[change]
    error = await ending(tmp_path, monkeypatch, entry("caller", "submit"), after)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "caller" in error.details()


async def test_a_file_that_is_written_again_as_it_was_ends_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(interceptor, "CHECK_INTERVAL", 0.0)
    own = [tmp_path / "own"]
    same = entry("caller", "submit", sources=own, outputs=own)
    path = tokens_on_disk.write(tmp_path / "tokens.toml", same)
    jobs = SlowJobs()
    jobs.add("jobs/1", owner="caller")
    async with running(tmp_path, planner=ScriptedPlanner(), jobs=jobs, tokens=str(path)) as server:
        stub = v1.JobServiceStub(server.channel)
        request = v1.WatchJobRequest(name="jobs/1")
        watch = stub.WatchJob(request, metadata=bearing("caller"), timeout=20)
        for _ in range(3):
            tokens_on_disk.write(path, same, entry("more", "read"))
            for _ in range(3):
                assert isinstance(await watch.read(), v1.WatchJobResponse)
            tokens_on_disk.write(path, same)
        watch.cancel()
