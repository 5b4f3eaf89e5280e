"""Servers that keep their jobs, and watchers that outlive them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import grpc
from tests.api.server_process import ServerProcess, server_process

from quantd import v1


@contextlib.contextmanager
def serving(folder: Path, *options: str) -> Iterator[ServerProcess]:
    with server_process(folder, "--state", str(folder / "state"), *options) as server:
        yield server


def kill(server: ServerProcess) -> None:
    server.process.kill()
    server.process.wait()


def written(folder: Path, output: str) -> dict[str, bytes]:
    """The bytes of an output, by file."""
    files = [folder / f"{output}.gguf", folder / f"{output}.gguf.quantd.json"]
    if (folder / output).is_dir():
        files = list((folder / output).iterdir())
    return {file.name: file.read_bytes() for file in files}


def state_of(job: v1.Job) -> str:
    return v1.JobState.Name(job.state).removeprefix("JOB_STATE_")


class Watcher:
    """A client that reattaches where it was, and keeps what it has seen of one job."""

    def __init__(self) -> None:
        self.name = ""
        self.events: list[v1.JobEvent] = []

    def submit(self, server: ServerProcess, asked: v1.QuantizeRequest) -> v1.Job:
        """The job of a request, as its first event shows it."""
        with grpc.insecure_channel(server.address) as channel:
            stream = v1.QuantizationServiceStub(channel).Quantize(asked, timeout=120)
            first = next(stream).event
            if not self.events:
                self.events.append(first)
                self.name = first.snapshot.name
            stream.cancel()
            return first.snapshot

    def watch(self, server: ServerProcess, *, seconds: float = 120, count: int = 1 << 30) -> None:
        """Takes in events until the job ends, or so many came, or the time is over."""
        with grpc.insecure_channel(server.address) as channel:
            after = self.events[-1].sequence
            stream = v1.JobServiceStub(channel).WatchJob(
                v1.WatchJobRequest(name=self.name, after_sequence=after), timeout=seconds
            )
            try:
                for answer in stream:
                    if answer.event.WhichOneof("event") != "heartbeat":
                        self.events.append(answer.event)
                        count -= 1
                    if count <= 0:
                        return
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise

    @property
    def last(self) -> v1.Job:
        return self.events[-1].snapshot

    def assert_whole(self) -> None:
        """Every event once, in order, the finished job last."""
        assert [event.sequence for event in self.events] == list(range(1, len(self.events) + 1))
        assert self.last.last_sequence == len(self.events)

    def states(self) -> list[str]:
        return [state_of(event.snapshot) for event in self.events if event.HasField("snapshot")]

    def warnings(self) -> list[str]:
        return [event.warning.reason for event in self.events if event.HasField("warning")]


def jobs_of(server: ServerProcess) -> list[v1.Job]:
    with grpc.insecure_channel(server.address) as channel:
        return list(v1.JobServiceStub(channel).ListJobs(v1.ListJobsRequest(), timeout=60).jobs)


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if ".quantd-" in path.name]
