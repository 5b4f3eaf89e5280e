"""Servers and workers that are killed at any moment, whatever the method: nothing is lost."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import grpc
import pytest
from tests.api.durable_servers import Watcher, hidden, jobs_of, kill, serving, state_of, written
from tests.api.server_process import ServerProcess
from tests.faults.injection import Faults
from tests.faults.requests import METHODS, output_of, request, write_sources

from quantd import v1

FINAL = ("SUCCEEDED", "FAILED", "CANCELLED")
SHORT = {("bitsandbytes_8bit", 1), ("gptq", 1)}
"""Rounds that are not slow."""

PATIENCE = 180.0
"""Seconds for what should happen soon."""

WORKER_CALLS = {  # the last number of a call that is worth a try
    "fsync": 12,
    "pwrite": 40,
    "rename": 1,
    "link": 1,
    "unlink": 3,
    "posix_fallocate": 1,
}

Written = Callable[[str], tuple[dict[str, bytes], int]]


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    write_sources(folder)
    return folder


def link_sources(sources: Path, folder: Path) -> None:
    for source in sources.iterdir():
        (folder / source.name).mkdir()
        for file in source.iterdir():
            os.link(file, folder / source.name / file.name)


@pytest.fixture
def folder(tmp_path, sources) -> Path:
    link_sources(sources, tmp_path)
    return tmp_path


@pytest.fixture
def faults(tmp_path, monkeypatch) -> Faults:
    return Faults(tmp_path / "faults", monkeypatch)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, sources) -> Written:
    """What a method writes when nobody disturbs it, and how many events that takes."""
    made: dict[str, tuple[dict[str, bytes], int]] = {}
    folder = tmp_path_factory.mktemp("undisturbed")
    link_sources(sources, folder)

    def of(method: str):
        if method not in made:
            watcher = Watcher()
            with serving(folder, "--threads", "1") as server:
                # Under the same name: a .gguf file's record is named after it.
                watcher.submit(server, request(folder, method, f"{method}/output"))
                watcher.watch(server)
            watcher.assert_whole()
            assert watcher.states()[-1] == "SUCCEEDED", watcher.last.error
            made[method] = written(folder / method, "output"), len(watcher.events)
        return made[method]

    return of


class Follower:
    """A client that submits a job and follows it to its end, whatever becomes of servers."""

    def __init__(self, asked: v1.QuantizeRequest) -> None:
        self.watcher = Watcher()
        self.server: ServerProcess | None = None
        self.faults: list[BaseException] = []
        self._asked = asked
        self._given_up = False
        self._thread = threading.Thread(target=self._follow)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._given_up = True
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    @property
    def count(self) -> int:
        return len(self.watcher.events)

    @property
    def done(self) -> bool:
        events = self.watcher.events
        return bool(self.faults) or (bool(events) and state_of(events[-1].snapshot) in FINAL)

    def _follow(self) -> None:
        while not self.done and not self._given_up:
            try:
                if self.server is not None:
                    if not self.watcher.events:
                        self.watcher.submit(self.server, self._asked)
                    self.watcher.watch(self.server, seconds=5)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    self.faults.append(error)
            except Exception as error:  # noqa: BLE001 - for the test to say
                self.faults.append(error)
            time.sleep(0.01)


class Round:
    """One job of a method under two kills, drawn by a seed."""

    def __init__(self, folder: Path, faults: Faults, method: str, seed: int, events: int) -> None:
        self.folder = folder
        self.faults = faults
        self.draw = random.Random(seed)
        self.events = events
        self.output = output_of(folder, "output", method)
        self.follower = Follower(request(folder, method))
        self.kills: list[str] = []
        self.server: ServerProcess

    def run(self, expected: dict[str, bytes]) -> None:
        # A worker that signal 9 ends may be begun again once, before all others.
        victims = (
            self.draw.choice(["worker", "server", "both"]),
            self.draw.choice(["server", "both"]),
        )
        with contextlib.ExitStack() as servers, self.follower:
            self.start(servers)
            for victim in victims:
                if self.draw.random() < 0.5:
                    self.strike_at_call(victim)
                else:
                    self.strike_at_moment(victim)
                if self.output.exists():
                    assert written(self.folder, "output") == expected, self.kills
                if self.server.process.poll() is not None:
                    self.faults.disarm()
                    self.start(servers)
            self.until(lambda: self.follower.done, "the job does not end")
            assert not self.follower.faults, (self.follower.faults, self.kills)
            watcher = self.follower.watcher
            (job,) = jobs_of(self.server)
            assert job == watcher.last
        watcher.assert_whole()
        assert watcher.states()[-1] == "SUCCEEDED", (self.kills, watcher.last.error)
        assert set(watcher.warnings()) <= {"JOB_RETRIED"}, self.kills
        assert written(self.folder, "output") == expected, self.kills
        assert not hidden(self.folder)

    def start(self, servers: contextlib.ExitStack) -> None:
        self.server = self.follower.server = servers.enter_context(
            serving(self.folder, "--threads", "1")
        )

    def strike_at_call(self, victim: str) -> None:
        if victim == "server":
            process, call, last = "server", "commit", self.events
        else:
            process, (call, last) = "worker", self.draw.choice([*WORKER_CALLS.items()])
        number, when = self.draw.randint(1, last), self.draw.choice(["before", "after"])
        self.kills.append(f"{victim}: {when} {call} {number}")
        self.faults.arm(process, call, "KILL", calls=number, when=when)
        self.until(lambda: self.follower.done or not self.faults.armed, self.kills[-1])
        if self.faults.armed:
            self.kills[-1] += " (did not come)"
            self.faults.disarm()
        if victim != "worker":
            kill(self.server)

    def strike_at_moment(self, victim: str) -> None:
        count = self.follower.count + self.draw.randint(1, self.events)
        self.until(lambda: self.follower.done or self.follower.count >= count, "no event comes")
        pause = self.draw.uniform(0, 0.3)
        time.sleep(pause)
        self.kills.append(f"{victim}: {pause:.3f} s after event {count}")
        if victim == "both":
            self.server.process.send_signal(signal.SIGSTOP)  # so that it does not hear of it
        if victim != "server":
            for started in self.server.events("job.started")[-1:]:  # not if it is still to come
                with contextlib.suppress(ProcessLookupError):
                    os.kill(started["worker_pid"], signal.SIGKILL)
        if victim != "worker":
            kill(self.server)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, (what, self.kills)
            time.sleep(0.005)


ROUNDS = [
    pytest.param(method, seed, marks=() if (method, seed) in SHORT else pytest.mark.slow)
    for seed in (1, 2, 3)
    for method in METHODS
][:13]


@pytest.mark.parametrize(("method", "seed"), ROUNDS)
def test_a_job_survives_two_kills(folder, faults, undisturbed, method, seed):
    expected, events = undisturbed(method)
    strikes = Round(folder, faults, method, seed * 100 + list(METHODS).index(method), events)
    strikes.run(expected)
    print(*strikes.kills, sep="\n")


@pytest.mark.parametrize(
    ("method", "call", "when"),
    [
        ("bitsandbytes_4bit", "rename", "before"),
        ("bitsandbytes_4bit", "rename", "after"),
        pytest.param("gguf", "link", "before", marks=pytest.mark.slow),
        pytest.param("gguf", "link", "after", marks=pytest.mark.slow),
        pytest.param("gptq", "rename", "after", marks=pytest.mark.slow),
    ],
)
def test_a_kill_at_the_last_rename(folder, faults, undisturbed, method, call, when):
    """Of the worker, then of the server as well: the one tells from the receipt, the other too."""
    expected, _ = undisturbed(method)
    for process in ("worker", "both"):
        name = f"{process}/output"
        follower = Follower(request(folder, method, name))
        with contextlib.ExitStack() as servers, follower:
            follower.server = servers.enter_context(serving(folder, "--threads", "1"))
            faults.arm("worker", call, "KILL", when=when)
            while faults.armed:
                assert not follower.done
                time.sleep(0.001)
            if process == "both":
                kill(follower.server)
                follower.server = servers.enter_context(serving(folder, "--threads", "1"))
            while not follower.done:
                time.sleep(0.01)
        assert not follower.faults
        follower.watcher.assert_whole()
        assert follower.watcher.states()[-1] == "SUCCEEDED"
        begun = follower.watcher.states().count("RUNNING")
        assert begun == (1 if when == "after" else 2)
        assert written(folder / process, "output") == expected
        assert not hidden(folder / process)
