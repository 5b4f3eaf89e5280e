"""A job service with real workers, and sources for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests import tiny_models
from tests.quantizing import planned, specification

from quantd_server.jobs.job import Job, JobEvent
from quantd_server.jobs.service import JobService


class Harness:
    """A service and the log that it wrote."""

    def __init__(self, folder: Path, small: Path, slow: Path, **limits: Any) -> None:
        self.folder = folder
        self._small = small
        self._slow = slow
        self.log: list[dict[str, Any]] = []
        defaults = {
            "max_running": 1,
            "max_queued": 10,
            "max_finished": 10,
            "max_events": 1000,
            "heartbeat_interval": 30.0,
            "threads": 2,
        }
        self.service = JobService(
            **(defaults | limits),
            log=lambda event, **fields: self.log.append({"event": event} | fields),
        )

    async def submit(
        self,
        output: str = "output",
        *,
        slow: bool = False,
        request_id: str = "",
        labels: dict[str, str] | None = None,
        owner: str = "",
        **options: Any,
    ) -> Job:
        """Submits a job that writes ``output``; a slow one takes seconds, for a .gguf file."""
        path = self.folder / (f"{output}.gguf" if slow else output)
        method, config = (
            ("gguf", {"file_type": "IQ4_XS"})
            if slow
            else ("bitsandbytes_4bit", {"bnb_4bit_quant_type": "NF4"})
        )
        source = self._slow if slow else self._small
        spec = specification(source, path, method, config, **options)
        return await self.service.submit(
            planned(spec),
            requested=spec,
            request_id=request_id,
            labels=labels or {},
            owner=owner,
        )

    async def events(self, name: str, after_sequence: int = 0) -> list[JobEvent]:
        """All events after a sequence, to the end of the job."""
        return [event async for event in self.service.watch(name, after_sequence)]

    async def until(self, name: str, kind: str) -> JobEvent:
        """Waits for the first event of a kind."""
        async for event in self.service.watch(name, 0):
            if getattr(event, kind) is not None:
                return event
        raise AssertionError(f"{name} ended without {kind}: {self.service.get(name)}")

    def left(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    return tiny_models.write(tmp_path_factory.mktemp("small") / "source")


@pytest.fixture(scope="session")
def slow(tmp_path_factory) -> Path:
    return tiny_models.write_slow(tmp_path_factory.mktemp("slow") / "source")


@pytest.fixture
async def make_harness(tmp_path, small, slow):
    """Makes harnesses whose services are stopped in the end."""
    made = []

    def make(**limits: Any) -> Harness:
        made.append(Harness(tmp_path, small, slow, **limits))
        return made[-1]

    yield make
    for harness in made:
        await harness.service.stop(10)
        assert not [entry for entry in harness.log if entry["event"] == "job.fault"]


@pytest.fixture
def harness(make_harness) -> Harness:
    return make_harness()
