"""The server's end of a worker, with stand-ins for workers that misbehave."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from quantd_server.jobs import supervisor, worker_process


@pytest.fixture
def misbehaving(tmp_path, monkeypatch):
    """Replaces the worker by a shell script."""

    def replace(script: str) -> None:
        path = tmp_path.parent / f"{tmp_path.name}.sh"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(worker_process, "sys", SimpleNamespace(executable=str(path)))

    return replace


STAGE = 'echo \'{"type":"stage","stage":"PREPARING"}\''


async def error_of(harness):
    job = await harness.submit()
    async with asyncio.timeout(30):
        events = await harness.events(job.name)
    assert events[-1].snapshot.state == "FAILED"
    return events, events[-1].snapshot.error


@pytest.mark.parametrize("words", ["nonsense", '{"type":"unknown"}', "{}", "", '"\\303"'])
async def test_words_that_are_no_events(make_harness, misbehaving, words) -> None:
    misbehaving(f"{STAGE}; printf '{words}\\n'; exec sleep 600")
    harness = make_harness()
    started = time.monotonic()
    events, error = await error_of(harness)
    assert time.monotonic() - started < 10
    assert (error.reason, error.message) == ("INTERNAL", "internal error")
    assert [event.stage.stage for event in events if event.stage] == ["PREPARING"]
    assert [entry["event"] for entry in harness.log].count("job.fault") == 1
    harness.log.clear()


async def test_killed_in_the_middle_of_a_word(harness, misbehaving) -> None:
    misbehaving(f'{STAGE}; echo oh >&2; printf \'{{"type":"ten\'; kill -9 $$')
    events, error = await error_of(harness)
    assert error.reason == "WORKER_KILLED"
    assert len([event for event in events if event.stage]) == 2  # it had another attempt
    (requeued,) = (line for line in harness.log if line["event"] == "job.requeued")
    assert requeued["worker_log"] == "oh\n"


async def test_an_end_without_a_word(harness, misbehaving) -> None:
    misbehaving("exit 0")
    _, error = await error_of(harness)
    assert error.reason == "WORKER_DIED"
    assert "status 0" in error.message


async def test_what_it_complains_of_is_in_the_log_only(harness, misbehaving) -> None:
    misbehaving("echo /secret/path >&2; exit 3")
    _, error = await error_of(harness)
    assert "secret" not in error.message
    assert harness.log[-1]["worker_log"] == "/secret/path\n"


async def test_it_gets_no_secrets_and_no_network(harness, misbehaving, monkeypatch) -> None:
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "QUANTD_TOKENS", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "a-secret")
    monkeypatch.setenv("NUMBA_NUM_THREADS", "7")
    misbehaving("env >&2; exit 3")
    await error_of(harness)
    environment = dict(
        line.split("=", 1) for line in harness.log[-1]["worker_log"].splitlines() if "=" in line
    )
    assert "a-secret" not in environment.values()
    assert environment["NUMBA_NUM_THREADS"] == "7"
    assert environment["HF_HUB_OFFLINE"] == environment["TRANSFORMERS_OFFLINE"] == "1"
    assert environment["OMP_NUM_THREADS"]


async def test_only_the_end_of_long_complaints_is_kept(harness, misbehaving) -> None:
    misbehaving("yes complaint | head -c 1000000 >&2; echo end >&2; exit 3")
    await error_of(harness)
    log = harness.log[-1]["worker_log"]
    assert len(log) == worker_process.KEPT_LOG_BYTES
    assert log.endswith("end\n")


async def test_what_it_complains_of_is_told_line_by_line(harness, misbehaving) -> None:
    misbehaving(
        "exec >&2; printf 'one\\n\\n  two\\nthr'; sleep 0.2; printf 'ee\\n\\377\\nend'; exit 3"
    )
    await error_of(harness)
    (started,) = (line for line in harness.log if line["event"] == "job.started")
    told = [line for line in harness.log if line["event"] == "worker.stderr"]
    assert [line["line"] for line in told] == [
        "one",
        "two",
        "three",
        "\ufffd",
        "end",
    ]
    assert {(line["job"], line["worker_pid"]) for line in told} == {
        (started["job"], started["worker_pid"])
    }


async def test_endless_complaints_do_not_fill_the_log(harness, misbehaving) -> None:
    misbehaving("yes complaint | head -c 100000 >&2; head -c 1000000 /dev/zero >&2; exit 3")
    await error_of(harness)
    told = [line["line"] for line in harness.log if line["event"] == "worker.stderr"]
    assert len(told) == worker_process.MAX_STDERR_LINES + 1
    assert told[-1] == "(more is left out)"


async def test_a_line_without_end_is_cut(harness, misbehaving) -> None:
    misbehaving("yes | tr -d '\\n' | head -c 1000000 >&2; exit 3")
    await error_of(harness)
    (told,) = [line["line"] for line in harness.log if line["event"] == "worker.stderr"]
    assert told == "y" * worker_process.MAX_STDERR_LINE_BYTES


async def test_a_worker_that_reads_no_order(harness, misbehaving) -> None:
    misbehaving("exec <&-; sleep 0.1; exit 4")
    _, error = await error_of(harness)
    assert error.reason == "WORKER_DIED"


async def test_a_worker_that_cannot_be_started(make_harness, monkeypatch) -> None:
    monkeypatch.setattr(worker_process, "sys", SimpleNamespace(executable="/nonexistent"))
    harness = make_harness()
    _, error = await error_of(harness)
    assert error.reason == "INTERNAL"
    assert "nonexistent" not in error.message
    harness.log.clear()


async def test_a_worker_deaf_to_signals_is_killed(harness, misbehaving, monkeypatch) -> None:
    monkeypatch.setattr(supervisor, "STOP_PATIENCE", 0.2)
    misbehaving(f"trap '' TERM; {STAGE}; while :; do sleep 1; done")
    job = await harness.submit()
    await harness.until(job.name, "stage")
    await harness.service.cancel(job.name, "")
    events = await harness.events(job.name)
    assert events[-1].snapshot.state == "CANCELLED"
