"""A state folder that an older server wrote, before stores had version 2, and was killed over.

`stores/version_1.sqlite3.gz` is its store; `version_1.json` is what it had told of its jobs, as
JSON of the messages. They are never to be made again.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import subprocess
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format
from tests.api.durable_servers import jobs_of, serving, state_of
from tests.api.server_process import COMMAND, environment

from quantd import v1
from quantd_server.jobs.job import FINAL_STATES, JobFilter
from quantd_server.jobs.store import VERSION, JobStore

STORES = Path(__file__).parent / "stores"
TOLD = [
    json_format.ParseDict(job, v1.Job())
    for job in json.loads((STORES / "version_1.json").read_text())
]
"""The newest first."""


@pytest.fixture
def state(tmp_path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    packed = (STORES / "version_1.sqlite3.gz").read_bytes()
    (folder / "jobs.sqlite3").write_bytes(gzip.decompress(packed))
    return folder


def as_json(job: v1.Job) -> dict:
    """Without what errors have said since then only."""
    document = json_format.MessageToDict(job)
    for detail in document.get("error", {}).get("details", ()):
        detail.get("metadata", {}).pop("remedy", None)
    return document


def is_finished(job: v1.Job) -> bool:
    return state_of(job) in FINAL_STATES


def test_the_fixture_is_what_it_says(state):
    connection = sqlite3.connect(state / "jobs.sqlite3")
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    columns = [row[1] for row in connection.execute("PRAGMA table_info(jobs)")]
    assert "owner" not in columns
    connection.close()
    assert [state_of(job) for job in TOLD] == [
        *("QUEUED", "RUNNING", "CANCELLED", "FAILED", "CANCELLED", "SUCCEEDED", "SUCCEEDED")
    ]


def test_its_jobs_and_events_are_intact_and_found(state):
    store = JobStore(state / "jobs.sqlite3", max_events=1000)
    assert store._connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert store._connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    jobs = store.jobs()
    assert [job.job.name for job in reversed(jobs)] == [job.name for job in TOLD]
    for stored in jobs:
        events = store.events(stored.job.name)
        assert [event.sequence for event in events] == [*range(1, stored.job.last_sequence + 1)]

    def names(owner: str | None = None, **wanted) -> list[str]:
        rows = store.page(JobFilter(**wanted), owner=owner, before=0, limit=100)
        return [name for _, name in rows]

    for state_name in {state_of(job) for job in TOLD}:
        expected = [job.name for job in TOLD if state_of(job) == state_name]
        assert names(states=frozenset({state_name})) == expected
    of_search = [job.name for job in TOLD if job.labels.get("team") == "search"]
    assert len(of_search) == 4
    assert names(labels={"team": "search"}) == of_search
    # Who made a job, which version 1 had in its documents alone.
    owners = {stored.job.name: stored.job.owner for stored in jobs}
    for owner in ("ci", "nightly"):
        assert names(owner) == [job.name for job in TOLD if owners[job.name] == owner]
        assert names(owner)
    store.close()


def test_a_server_goes_on_with_it(tmp_path, state):
    with serving(tmp_path) as server:
        now = {job.name: job for job in jobs_of(server)}
        assert [*now] == [job.name for job in TOLD]
        with grpc.insecure_channel(server.address) as channel:
            for told in TOLD:
                watch = v1.JobServiceStub(channel).WatchJob(
                    v1.WatchJobRequest(name=told.name), timeout=60
                )
                events = [answer.event for answer in watch]
                last = events[-1].snapshot
                assert [event.sequence for event in events] == [*range(1, len(events) + 1)]
                if is_finished(told):
                    # As JSON: details of errors hold maps, whose order in bytes means nothing.
                    assert as_json(now[told.name]) == as_json(last) == as_json(told)
                else:  # its source is not here
                    assert state_of(last) == "FAILED"
                    assert last.create_time == told.create_time
            # A request that was made before is the same one.
            found = v1.JobServiceStub(channel).ListJobs(
                v1.ListJobsRequest(states=["JOB_STATE_SUCCEEDED"], page_size=1), timeout=20
            )
            assert found.jobs[0].name == TOLD[-2].name
            assert found.next_page_token
        assert server.stop() == 0
        assert not server.events("incident")


def test_a_server_does_not_start_with_the_store_of_a_newer_one(tmp_path, state):
    connection = sqlite3.connect(state / "jobs.sqlite3")
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    before = (state / "jobs.sqlite3").read_bytes()
    result = subprocess.run(
        [*COMMAND, "--listen", "127.0.0.1:0", "--state", str(state)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        cwd=tmp_path,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("quantd serve: the state folder was written by a newer quantd")
    assert "STATE_TOO_NEW" in result.stderr
    assert (state / "jobs.sqlite3").read_bytes() == before
