"""Which jobs a listing has: the question to the store, and a page of the answer."""

from __future__ import annotations

import msgspec

from quantd_server.jobs.job import Job, JobFilter

MAX_PAGE = 500
"""Jobs of one page."""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs, the newest first."""

    jobs: list[Job]
    next: int = 0
    """Where the next page starts: the number of the last job that was looked at; 0: there is none.
    Numbers grow and are never used again, so that jobs that come or go shift no page."""


def page_query(
    wanted: JobFilter, *, owner: str | None, before: int, limit: int
) -> tuple[str, list[object]]:
    """SQL for number and name of the newest jobs, and its parameters.

    ``owner``: whose jobs alone; None for all. ``before``: of a smaller number; 0 for all.
    """
    conditions: list[str] = []
    parameters: list[object] = []

    def ask(condition: str, *values: object) -> None:
        conditions.append(condition)
        parameters.extend(values)

    if before:
        ask("number < ?", before)
    if owner is not None:
        ask("owner = ?", owner)
    for column, values in (("state", wanted.states), ("method", wanted.methods)):
        if values:
            ask(f"{column} IN ({', '.join('?' * len(values))})", *sorted(values))
    if wanted.created_from is not None:
        ask("create_time >= ?", wanted.created_from)
    if wanted.created_until is not None:
        ask("create_time < ?", wanted.created_until)
    for label in wanted.labels.items():
        ask("number IN (SELECT job FROM labels WHERE key = ? AND value = ?)", *label)
    where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
    # Nothing but names of columns and question marks is put together.
    sql = f"SELECT number, name FROM jobs {where}ORDER BY number DESC LIMIT ?"  # noqa: S608
    return sql, [*parameters, limit]
