"""Jobs whose workers and servers are killed again and again: who gets further is not given up."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from tests.api.durable_servers import Watcher, hidden, kill, serving, written
from tests.api.server_process import ServerProcess
from tests.faults.requests import request, write_sources

from quantd_server.jobs.worker_death import MAX_FUTILE_ATTEMPTS, MAX_FUTILE_KILLED_ATTEMPTS

PATIENCE = 120.0


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    write_sources(folder)
    return folder


@pytest.fixture
def folder(tmp_path, sources) -> Path:
    (tmp_path / "calibrated").symlink_to(sources / "calibrated")
    return tmp_path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, sources) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "calibrated").symlink_to(sources / "calibrated")
    watcher = Watcher()
    with serving(folder, *OPTIONS, f"--source-root={sources}") as server:
        watcher.submit(server, request(folder, "gptq"))
        watcher.watch(server)
    return written(folder, "output")


OPTIONS = ("--threads", "1")


def checkpoints(folder: Path) -> int:
    """Whole lines of the record of solved blocks, without its first one."""
    records = list(folder.glob(".output.quantd-*/blocks"))
    return records[0].read_bytes().count(b"\n") - 1 if records else 0


def until(condition, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.002)


def kill_worker(server: ServerProcess, number: int, folder: Path, *, further_than: int) -> int:
    """Kills the worker of an attempt as soon as it got further; how far it got."""
    until(lambda: len(server.events("job.started")) >= number, f"no attempt {number}")
    until(lambda: checkpoints(folder) > further_than, f"attempt {number} gets no further")
    os.kill(server.events("job.started")[number - 1]["worker_pid"], signal.SIGKILL)
    until(lambda: len(server.events("job.requeued")) >= number, "it is not begun again")
    return checkpoints(folder)


def test_a_job_is_not_given_up_while_its_workers_get_further(folder, sources, undisturbed):
    watcher = Watcher()
    with serving(folder, *OPTIONS, f"--source-root={sources}") as server:
        watcher.submit(server, request(folder, "gptq"))
        done = 0
        for number in range(1, MAX_FUTILE_KILLED_ATTEMPTS + 2):
            done = kill_worker(server, number, folder, further_than=done)
        watcher.watch(server)
    watcher.assert_whole()
    assert watcher.states()[-1] == "SUCCEEDED", watcher.last.error
    assert watcher.warnings() == ["JOB_RETRIED"] * (MAX_FUTILE_KILLED_ATTEMPTS + 1)
    assert written(folder, "output") == undisturbed
    assert not hidden(folder)


@pytest.mark.slow
def test_a_job_is_given_up_when_they_no_longer_do(folder, sources):
    watcher = Watcher()
    with serving(folder, *OPTIONS, f"--source-root={sources}") as server:
        watcher.submit(server, request(folder, "gptq"))
        kill_worker(server, 1, folder, further_than=0)
        for number in range(2, 2 + MAX_FUTILE_KILLED_ATTEMPTS):
            until(lambda: len(server.events("job.started")) >= number, f"no attempt {number}")  # noqa: B023
            os.kill(server.events("job.started")[number - 1]["worker_pid"], signal.SIGKILL)
        watcher.watch(server)
    assert watcher.states()[-1] == "FAILED"
    assert watcher.warnings() == ["JOB_RETRIED"] * MAX_FUTILE_KILLED_ATTEMPTS
    assert not hidden(folder)


@pytest.mark.slow
@pytest.mark.parametrize("further", [True, False])
def test_servers_that_are_killed_again_and_again(folder, sources, undisturbed, further):
    watcher = Watcher()
    asked = request(folder, "gptq")
    done = 0
    for number in range(MAX_FUTILE_ATTEMPTS + 1 if further else MAX_FUTILE_ATTEMPTS):
        with serving(folder, *OPTIONS, f"--source-root={sources}") as server:
            if not number:
                watcher.submit(server, asked)
            until(lambda: server.events("job.started"), "no attempt")
            if further:
                until(lambda: checkpoints(folder) > done, "it gets no further")  # noqa: B023
                done = checkpoints(folder)
            kill(server)
    with serving(folder, *OPTIONS, f"--source-root={sources}") as server:
        watcher.watch(server)
    watcher.assert_whole()
    if further:
        assert watcher.states()[-1] == "SUCCEEDED", watcher.last.error
        assert written(folder, "output") == undisturbed
    else:
        assert watcher.states()[-1] == "FAILED"
        assert f"the last {MAX_FUTILE_ATTEMPTS} got no further" in watcher.last.error.message
    assert not hidden(folder)
