"""The store of jobs: what a server has promised, in SQLite.

All of it blocks, and belongs to one thread; ``jobs.journal`` is the way there from the event loop.
A job is one JSON document (``StoredJob``), an event another (``JobEvent``); beside them stand the
columns that jobs are ordered and filtered by. A document that an older quantd wrote is read with
the defaults of the fields that it lacks, so only changes of the tables need a migration.

With a path, the store is a file in write-ahead mode with ``synchronous=FULL``: what ``commit`` has
returned from survives a loss of power. Without one, it lives in memory and ends with the process.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from quantd_server.errors import QuantdError
from quantd_server.jobs.job import JobEvent, JobFilter, StoredJob
from quantd_server.jobs.listing import page_query

MIGRATIONS = (
    # 0 to 1
    """
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        request_id TEXT NOT NULL,
        state TEXT NOT NULL,
        method TEXT NOT NULL,
        create_time REAL NOT NULL,
        document BLOB NOT NULL
    );
    CREATE INDEX jobs_by_state ON jobs (state, method, create_time);
    CREATE TABLE labels (
        job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (key, value, job)
    ) WITHOUT ROWID;
    CREATE INDEX labels_of_job ON labels (job);
    CREATE TABLE events (
        job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
        sequence INTEGER NOT NULL,
        document BLOB NOT NULL,
        PRIMARY KEY (job, sequence)
    ) WITHOUT ROWID;
    """,
    # 1 to 2: what listings ask for, each with an index, which has the jobs in their order
    """
    ALTER TABLE jobs ADD COLUMN owner TEXT NOT NULL DEFAULT '';
    UPDATE jobs SET owner = coalesce(json_extract(CAST(document AS TEXT), '$.job.owner'), '')
        WHERE json_valid(CAST(document AS TEXT));
    CREATE INDEX jobs_by_owner ON jobs (owner);
    CREATE INDEX jobs_by_method ON jobs (method);
    CREATE INDEX jobs_by_create_time ON jobs (create_time);
    DROP INDEX jobs_by_state;
    CREATE INDEX jobs_by_state ON jobs (state);
    """,
)
"""What brings the tables from each version to the next; once released, an entry never changes."""

VERSION = len(MIGRATIONS)

_encode = msgspec.json.Encoder().encode
_decode_job = msgspec.json.Decoder(StoredJob).decode
_decode_event = msgspec.json.Decoder(JobEvent).decode


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a job: how it is now, with the event that tells of it, or that it is gone."""

    name: str
    job: StoredJob | None
    """None: the job is forgotten, with its events."""
    event: JobEvent | None = None


class JobStore:
    """Jobs and their events. Not for two threads at once."""

    def __init__(self, path: Path | None, *, max_events: int) -> None:
        """Open the store, or make it; keep the newest ``max_events`` events of a job.

        Raises QuantdError STATE_TOO_NEW, STATE_UNREADABLE or STATE_NOT_WRITABLE.
        """
        self.durable = path is not None
        self._max_events = max_events
        with _faults_named():
            self._connection = sqlite3.connect(
                str(path) if path else ":memory:",
                isolation_level=None,  # transactions are begun and ended here
                check_same_thread=False,  # opened by one thread, then used by another
            )
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def _prepare(self) -> None:
        execute = self._connection.execute
        (version,) = execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise QuantdError(
                reason="STATE_TOO_NEW",
                kind="precondition",
                message=f"the state folder was written by a newer quantd: its version is "
                f"{version}, this one reads up to {VERSION}",
                remedy="start that quantd, or name another state folder",
            )
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA foreign_keys = ON")
        for number in range(version, VERSION):
            # executescript ends a transaction that is open, so the script has its own.
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;"
            )

    def commit(self, changes: Sequence[Change]) -> None:
        """Take in the changes, in their order, all or none of them; then they are durable.

        Raises QuantdError STATE_UNREADABLE or STATE_NOT_WRITABLE.
        """
        with _faults_named(), self._transaction():
            # Of several documents of a job only the last one would be seen.
            newest = {change.name: change for change in changes}
            for change in newest.values():
                if change.job is None:
                    self._connection.execute("DELETE FROM jobs WHERE name = ?", (change.name,))
                else:
                    self._put(change.job)
            for change in changes:
                if change.event is not None and newest[change.name].job is not None:
                    self._add(change.name, change.event)
            for change in newest.values():
                if change.job is not None:
                    self._drop_events(change.job)

    def _put(self, stored: StoredJob) -> None:
        job = stored.job
        known = self._connection.execute(
            "UPDATE jobs SET state = ?, document = ? WHERE name = ?",
            (job.state, _encode(stored), job.name),
        )
        if known.rowcount:
            return
        added = self._connection.execute(
            "INSERT INTO jobs (name, request_id, owner, state, method, create_time, document) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                job.name,
                job.request_id,
                job.owner,
                job.state,
                job.spec.method.name,
                job.create_time,
                _encode(stored),
            ),
        )
        self._connection.executemany(
            "INSERT INTO labels (job, key, value) VALUES (?, ?, ?)",
            [(added.lastrowid, key, value) for key, value in job.labels.items()],
        )

    def _add(self, name: str, event: JobEvent) -> None:
        self._connection.execute(
            "INSERT INTO events (job, sequence, document) "
            "SELECT number, ?, ? FROM jobs WHERE name = ?",
            (event.sequence, _encode(event), name),
        )

    def _drop_events(self, stored: StoredJob) -> None:
        self._connection.execute(
            "DELETE FROM events WHERE job = (SELECT number FROM jobs WHERE name = ?) "
            "AND sequence <= ?",
            (stored.job.name, stored.job.last_sequence - self._max_events),
        )

    def jobs(self) -> list[StoredJob]:
        """All jobs, the oldest first. Raises QuantdError STATE_UNREADABLE."""
        with _faults_named():
            rows = self._connection.execute("SELECT document FROM jobs ORDER BY number")
            return [_decode_job(document) for (document,) in rows]

    def page(
        self, wanted: JobFilter, *, owner: str | None, before: int, limit: int
    ) -> list[tuple[int, str]]:
        """Number and name of the newest jobs, as ``listing.page_query`` asks for them.

        Raises QuantdError STATE_UNREADABLE.
        """
        sql, parameters = page_query(wanted, owner=owner, before=before, limit=limit)
        with _faults_named():
            return self._connection.execute(sql, parameters).fetchall()

    def events(self, name: str) -> list[JobEvent]:
        """The events of a job that are kept. Raises QuantdError STATE_UNREADABLE."""
        with _faults_named():
            rows = self._connection.execute(
                "SELECT document FROM events "
                "WHERE job = (SELECT number FROM jobs WHERE name = ?) ORDER BY sequence",
                (name,),
            )
            return [_decode_event(document) for (document,) in rows]

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


@contextmanager
def _faults_named() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise QuantdError(
            reason="STATE_NOT_WRITABLE",
            kind="unavailable",
            message=f"the store of jobs cannot be written: {error}",
            remedy="see that the state folder's disk has room and that the server's user may "
            "write there",
        ) from None
    except (sqlite3.DatabaseError, msgspec.DecodeError) as error:
        raise QuantdError(
            reason="STATE_UNREADABLE",
            kind="precondition",
            message=f"the store of jobs cannot be read: {error}",
            remedy="bring the state folder back from a copy, or name another one",
        ) from None
