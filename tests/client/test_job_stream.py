"""A job's events arrive exactly once and in order, whatever happens to the connection."""

from __future__ import annotations

import threading
import time

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.client.conftest import QUICK
from tests.client.fake_server import JOB, Break, FakeServer, error_info, script

import quantd
from quantd import v1

Code = grpc.StatusCode

BREAKS = st.lists(
    st.builds(
        Break,
        after=st.integers(0, 6),
        code=st.sampled_from([None, Code.UNAVAILABLE, Code.INTERNAL, Code.UNKNOWN, Code.CANCELLED]),
    ),
    max_size=8,
)


def quantize(client):
    return client.quantize("/models/m", "/models/m.gguf", quantd.gguf("Q4_K_M"))


def stored(events):
    return [event.sequence for event in events if event.WhichOneof("event") != "heartbeat"]


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory):
    with FakeServer(tmp_path_factory.mktemp("s")) as fake:
        yield fake


@settings(max_examples=60, deadline=None)
@given(breaks=BREAKS, heartbeat_every=st.integers(0, 3))
def test_no_event_is_lost_or_repeated(shared_server, breaks, heartbeat_every):
    shared_server.breaks = list(breaks)
    shared_server.heartbeat_every = heartbeat_every
    with quantd.Client(shared_server.address, reconnect=QUICK) as client:
        events = list(quantize(client))
    assert stored(events) == list(range(1, len(shared_server.log) + 1))
    assert events[-1] == shared_server.log[-1]


@settings(max_examples=30, deadline=None)
@given(breaks=BREAKS, heartbeat_every=st.integers(0, 3))
async def test_no_event_is_lost_or_repeated_with_asyncio(shared_server, breaks, heartbeat_every):
    shared_server.breaks = list(breaks)
    shared_server.heartbeat_every = heartbeat_every
    async with quantd.AsyncClient(shared_server.address, reconnect=QUICK) as client:
        events = [event async for event in await quantize(client)]
    assert stored(events) == list(range(1, len(shared_server.log) + 1))


def restart_soon(server):
    server.stop()
    server.last_sent = None
    threading.Timer(0.2, server.start).start()


def test_the_server_may_restart(server, client):
    server.last_sent = 3
    stream = quantize(client)
    seen = [next(stream) for _ in range(3)]
    restart_soon(server)
    seen += list(stream)
    assert stored(seen) == list(range(1, len(server.log) + 1))
    assert server.requests("WatchJob")[-1] == v1.WatchJobRequest(name=JOB, after_sequence=3)


async def test_the_server_may_restart_with_asyncio(server, async_client):
    server.last_sent = 3
    stream = await quantize(async_client)
    seen = [await anext(stream) for _ in range(3)]
    restart_soon(server)
    seen += [event async for event in stream]
    assert stored(seen) == list(range(1, len(server.log) + 1))


def test_a_break_before_the_first_event_repeats_the_same_request(server, client):
    server.breaks = [Break(after=0), Break(after=0)]
    assert quantize(client).name == JOB
    first, *others = server.requests("Quantize")
    assert len(others) == 2
    assert all(request == first for request in others)
    assert first.request_id


def test_events_that_are_gone_are_replaced_by_a_snapshot(server, client):
    server.first_kept = 6
    events = list(client.watch(JOB, after_sequence=2))
    assert [event.sequence for event in events] == list(range(5, len(server.log) + 1))
    assert events[0].WhichOneof("event") == "snapshot"


def test_watching_after_the_last_event_ends_at_once(server, client):
    stream = client.watch(JOB, after_sequence=len(server.log))
    assert list(stream) == []
    assert stream.result() == server.log[-1].snapshot.result


def test_watching_waits_for_the_server(tmp_path_factory):
    fake = FakeServer(tmp_path_factory.mktemp("s"))
    threading.Timer(0.2, fake.start).start()
    with quantd.Client(fake.address, reconnect=QUICK) as client:
        assert list(client.watch(JOB))
    fake.stop()


def test_leaving_cancels_nothing_and_iterating_goes_on(server, client):
    stream = quantize(client)
    first = next(stream)
    stream.close()
    rest = list(stream)
    assert stored([first, *rest]) == list(range(1, len(server.log) + 1))
    assert server.requests("CancelJob") == []


def test_closing_while_another_thread_reads_ends_the_read(server, client):
    server.last_sent = 1
    stream = quantize(client)
    next(stream)
    threading.Timer(0.1, stream.close).start()
    with pytest.raises(quantd.CallCancelledError):
        next(stream)
    assert server.requests("WatchJob") == []


def test_the_job_is_kept_up_to_date(server, client):
    stream = quantize(client)
    assert stream.job.state == v1.JobState.JOB_STATE_QUEUED
    done = []
    for event in stream:
        if event.WhichOneof("event") == "tensor":
            done.append(stream.job.progress.tensors_done)
            assert stream.job.state == v1.JobState.JOB_STATE_RUNNING
    assert done == [1, 2, 3, 4, 5]
    assert stream.job.state == v1.JobState.JOB_STATE_SUCCEEDED
    assert stream.last_sequence == len(server.log)
    assert stream.result().worst_tensor == "blk.3.attn_q.weight"


@pytest.mark.parametrize(
    ("state", "error"), [("FAILED", quantd.JobFailed), ("CANCELLED", quantd.JobCancelled)]
)
def test_result_raises_what_became_of_the_job(server, client, state, error):
    server.log = script(state=state)
    with pytest.raises(error) as caught:
        quantize(client).result()
    assert caught.value.reason == "DISK_FULL"
    assert caught.value.job == server.log[-1].snapshot
    assert str(caught.value) == "DISK_FULL: the disk is full"


async def test_result_with_asyncio(server, async_client):
    result = await (await quantize(async_client)).result()
    assert result == server.log[-1].snapshot.result


def test_cancel_asks_the_server(server, client):
    stream = quantize(client)
    assert stream.cancel("no more need").state == v1.JobState.JOB_STATE_CANCELLING
    assert server.requests("CancelJob") == [v1.CancelJobRequest(name=JOB, reason="no more need")]


def test_an_answer_of_the_server_is_no_lost_connection(server, client):
    details = (error_info("INTERNAL", incident="x1"),)
    server.breaks = [Break(after=2, code=Code.INTERNAL, details=details)]
    stream = quantize(client)
    with pytest.raises(quantd.InternalError) as caught:
        list(stream)
    assert caught.value.metadata == {"incident": "x1"}
    assert server.requests("WatchJob") == []


def test_a_job_that_the_server_forgot_is_an_error(server, client):
    server.breaks = [
        Break(after=2),
        Break(after=0, code=Code.NOT_FOUND, details=(error_info("JOB_NOT_FOUND"),)),
    ]
    with pytest.raises(quantd.NotFoundError):
        list(quantize(client))


def test_it_gives_up_in_the_end(server):
    reconnect = quantd.Reconnect(initial_delay=0.01, max_delay=0.02, timeout=0.2)
    server.last_sent = 1
    with quantd.Client(server.address, reconnect=reconnect) as client:
        stream = quantize(client)
        next(stream)
        server.stop()
        start = time.monotonic()
        with pytest.raises(quantd.UnavailableError):
            list(stream)
        assert time.monotonic() - start < 2.0


def test_reconnecting_can_be_turned_off(server):
    server.breaks = [Break(after=2)]
    with quantd.Client(server.address, reconnect=quantd.Reconnect(timeout=0)) as client:
        stream = quantize(client)
        with pytest.raises(quantd.UnavailableError):
            list(stream)
        assert stored(list(stream)) == list(range(3, len(server.log) + 1))  # but goes on when asked


async def test_a_cancelled_read_loses_nothing(server, async_client):
    import asyncio

    server.last_sent = 3
    stream = await quantize(async_client)
    seen = [await anext(stream) for _ in range(3)]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(stream), 0.05)
    server.last_sent = None
    seen += [event async for event in stream]
    assert stored(seen) == list(range(1, len(server.log) + 1))
