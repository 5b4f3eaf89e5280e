"""The store by itself: what comes back, versions, damage."""

from __future__ import annotations

import sqlite3
import tempfile
from collections import defaultdict
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.api.servers import PLAN, SPEC

from quantd_server.engine.events import TensorEvent
from quantd_server.errors import QuantdError
from quantd_server.jobs.job import Job, JobEvent, StoredJob
from quantd_server.jobs.store import MIGRATIONS, VERSION, Change, JobStore


def stored(name: str, last_sequence: int = 0, **fields) -> StoredJob:
    job = Job(name=name, spec=SPEC, plan=PLAN, create_time=1.5, last_sequence=last_sequence)
    return StoredJob(
        job=msgspec.structs.replace(job, **fields),
        requested=SPEC,
        source_path="/models/a",
        output_path="/models/b",
        paths={"file:/c": "/c"},
        source_fingerprint="f",
    )


def step(name: str, sequence: int, **fields) -> Change:
    """A change with its event."""
    job = stored(name, sequence, **fields)
    return Change(name=name, job=job, event=JobEvent(sequence=sequence, time=2.0, snapshot=job.job))


def test_what_is_committed_comes_back_from_the_file(tmp_path):
    path = tmp_path / "jobs"
    store = JobStore(path, max_events=10)
    labels = {"team": "a", "": "empty"}
    changes = [step("jobs/b", 1, labels=labels, request_id="r"), step("jobs/a", 1)]
    store.commit(changes)
    tensor = TensorEvent(
        name="t",
        shape=(2, 3),
        source_type="BF16",
        target_type="Q8_0",
        size_bytes=8,
        relative_error=0.1,
        progress=msgspec.structs.replace(changes[0].job.job.progress, tensors_done=1),
    )
    later = msgspec.structs.replace(stored("jobs/b", 2, labels=labels), attempts=2)
    store.commit(
        [Change(name="jobs/b", job=later, event=JobEvent(sequence=2, time=3.0, tensor=tensor))]
    )
    store.close()
    again = JobStore(path, max_events=10)
    assert again.jobs() == [later, changes[1].job]  # in the order in which they came
    assert again.events("jobs/b") == [
        changes[0].event,
        JobEvent(sequence=2, time=3.0, tensor=tensor),
    ]
    assert again.events("jobs/c") == []
    again.close()


def test_a_batch_is_taken_in_whole_or_not_at_all(tmp_path):
    store = JobStore(tmp_path / "jobs", max_events=10)
    store.commit([step("jobs/a", 1)])
    with pytest.raises(QuantdError):  # the event is there already
        store.commit([step("jobs/b", 1), step("jobs/a", 1)])
    assert [job.job.name for job in store.jobs()] == ["jobs/a"]
    store.commit([step("jobs/b", 1)])
    assert len(store.jobs()) == 2


ACTIONS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["event", "note", "forget"])), max_size=30
)


@settings(max_examples=60, deadline=None)
@given(batches=st.lists(ACTIONS, max_size=4), max_events=st.integers(1, 4))
def test_any_batches_leave_the_newest_of_each_job(batches, max_events):
    with tempfile.TemporaryDirectory() as folder:
        events: dict[str, list[JobEvent]] = defaultdict(list)
        newest: dict[str, StoredJob] = {}
        forgotten: set[str] = set()
        for batch in batches:
            changes = []
            for name, action in batch:
                if name in forgotten or (action != "event" and name not in newest):
                    continue
                if action == "event":
                    changes.append(step(name, len(events[name]) + 1))
                    events[name].append(changes[-1].event)
                    newest[name] = changes[-1].job
                elif action == "note":
                    attempts = newest[name].attempts + 1
                    newest[name] = msgspec.structs.replace(newest[name], attempts=attempts)
                    changes.append(Change(name=name, job=newest[name]))
                else:
                    changes.append(Change(name=name, job=None))
                    forgotten.add(name)
                    del newest[name], events[name]
            store = JobStore(Path(folder, "jobs"), max_events=max_events)
            store.commit(changes)
            store.close()
        store = JobStore(Path(folder, "jobs"), max_events=max_events)
        assert {job.job.name: job for job in store.jobs()} == newest
        for name in "abc":
            assert store.events(name) == events[name][-max_events:]
        for table in ("labels", "events"):
            orphans = f"SELECT job FROM {table} EXCEPT SELECT number FROM jobs"  # noqa: S608
            assert store._connection.execute(orphans).fetchall() == []
        store.close()


# -- versions ------------------------------------------------------------------------------------


def version_of(path: Path) -> int:
    connection = sqlite3.connect(path)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return version


def test_an_empty_file_is_version_0_and_becomes_the_newest(tmp_path):
    path = tmp_path / "jobs"
    path.touch()
    JobStore(path, max_events=1).close()
    assert version_of(path) == VERSION == len(MIGRATIONS)


VERSION_1 = """
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,
        request_id TEXT NOT NULL, state TEXT NOT NULL, method TEXT NOT NULL,
        create_time REAL NOT NULL, document BLOB NOT NULL);
    CREATE INDEX jobs_by_state ON jobs (state, method, create_time);
    CREATE TABLE labels (
        job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
        key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (key, value, job)) WITHOUT ROWID;
    CREATE INDEX labels_of_job ON labels (job);
    CREATE TABLE events (
        job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
        sequence INTEGER NOT NULL, document BLOB NOT NULL,
        PRIMARY KEY (job, sequence)) WITHOUT ROWID;
    PRAGMA user_version = 1;
"""
"""The tables as the first version made them; never to be changed."""

JOB_1 = (
    b'{"name":"jobs/1","request_id":"","spec":{"source_uri":"/a","output_uri":"/b","method":'
    b'{"bitsandbytes_4bit":{}}},"state":"CANCELLED","plan":{"method":{"bitsandbytes_4bit":{}},'
    b'"device":"CPU","types":[],"parameter_count":1,"quantized_parameter_count":1,'
    b'"source_bytes":2,"output_bytes":1,"bits_per_weight":4.5,"peak_memory_bytes":1,'
    b'"scratch_bytes":1},"create_time":1.5,"last_sequence":1}'
)
"""A job as the first version wrote it, with as little as it needs."""


def test_a_store_of_version_1_opens(tmp_path):
    path = tmp_path / "jobs"
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1)
    document = (
        b'{"job":' + JOB_1 + b',"requested":{"source_uri":"/a","method":{"bitsandbytes_4bit":{}}},'
        b'"source_path":"/a","output_path":"/b","paths":{},"source_fingerprint":"f"}'
    )
    connection.execute(
        "INSERT INTO jobs VALUES (1, 'jobs/1', '', 'CANCELLED', 'bitsandbytes_4bit', 1.5, ?)",
        (document,),
    )
    event = b'{"sequence":1,"time":2.5,"snapshot":' + JOB_1 + b"}"
    connection.execute("INSERT INTO events VALUES (1, 1, ?)", (event,))
    connection.commit()
    connection.close()
    store = JobStore(path, max_events=10)
    (job,) = store.jobs()
    assert (job.job.name, job.job.state, job.attempts) == ("jobs/1", "CANCELLED", 0)
    assert [event.snapshot for event in store.events("jobs/1")] == [job.job]
    store.close()
    assert version_of(path) == VERSION


def test_the_tables_of_version_1_are_what_the_migration_makes(tmp_path):
    """So that the fixture above stands for real files."""

    def tables(connection: sqlite3.Connection) -> list[tuple]:
        names = connection.execute(
            "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
        ).fetchall()
        return [
            (name, connection.execute(f"PRAGMA table_xinfo({name})").fetchall(), kind)
            for (name,) in names
            for kind in connection.execute(f"PRAGMA index_xinfo({name})").fetchall() or [()]
        ]

    by_hand, made = sqlite3.connect(":memory:"), sqlite3.connect(":memory:")
    by_hand.executescript(VERSION_1)
    made.executescript(MIGRATIONS[0])
    assert tables(by_hand) == tables(made)


def test_a_store_of_a_newer_version_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "jobs"
    JobStore(path, max_events=1).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(QuantdError) as caught:
        JobStore(path, max_events=1)
    assert (caught.value.reason, caught.value.kind) == ("STATE_TOO_NEW", "precondition")
    assert path.read_bytes() == before


def test_a_migration_that_fails_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "jobs"
    monkeypatch.setattr(
        "quantd_server.jobs.store.MIGRATIONS", ("CREATE TABLE jobs (a); CREATE TABLE jobs (b);",)
    )
    with pytest.raises(QuantdError):
        JobStore(path, max_events=1)
    monkeypatch.undo()
    assert version_of(path) == 0
    JobStore(path, max_events=1).close()


@pytest.mark.parametrize("data", [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_store_is_refused(tmp_path, data):
    path = tmp_path / "jobs"
    path.write_bytes(data)
    with pytest.raises(QuantdError) as caught:
        JobStore(path, max_events=1)
    assert caught.value.reason == "STATE_UNREADABLE"
    assert str(tmp_path) not in caught.value.message


def test_a_document_that_is_damaged_is_refused(tmp_path):
    store = JobStore(tmp_path / "jobs", max_events=1)
    store.commit([step("jobs/a", 1)])
    store._connection.execute("UPDATE jobs SET document = '{}'")
    with pytest.raises(QuantdError) as caught:
        store.jobs()
    assert caught.value.reason == "STATE_UNREADABLE"
