"""Who may call what, on a server with TLS and tokens."""

from __future__ import annotations

from tests.conformance.definitions.writing import (
    CANCEL,
    CAPABILITIES,
    DELETE,
    GET,
    LIST,
    NF4,
    QUANTIZE,
    answered,
    call,
    refused,
    spec,
    vector,
)
from tests.conformance.vector import Step, Vector

NOBODY, DENIED = "UNAUTHENTICATED", "PERMISSION_DENIED"
JOB = {"spec": spec("tiny", NF4, "out")}


def unknown(reason: str) -> list[Step]:
    """Neither kind of call is answered."""
    return [
        refused(CAPABILITIES, {}, NOBODY, reason),
        refused(QUANTIZE, JOB, NOBODY, reason),
    ]


VECTORS: list[Vector] = [
    vector("access/no-token", *unknown("CREDENTIALS_MISSING"), server="guarded"),
    vector("access/stranger", *unknown("TOKEN_INVALID"), server="guarded", caller="stranger"),
    vector("access/expired", *unknown("CREDENTIALS_EXPIRED"), server="guarded", caller="late"),
    vector(
        "access/reader",
        answered(CAPABILITIES, {}, {"methods": {"$length": 6}}),
        answered(LIST, {}, {}),
        refused(QUANTIZE, JOB, DENIED, "ROLE_TOO_SMALL"),
        refused(CANCEL, {"name": "jobs/a"}, DENIED, "ROLE_TOO_SMALL"),
        refused(DELETE, {"name": "jobs/a"}, DENIED, "ROLE_TOO_SMALL"),
        refused(GET, {"name": "jobs/a"}, "NOT_FOUND", "JOB_NOT_FOUND"),
        server="guarded",
        caller="reader",
    ),
    vector(
        "access/submitter",
        call(
            QUANTIZE,
            {**JOB, "labels": {"of": "submitter"}},
            expect={"events": {"first": {"owner": "submitter"}, "last": {"owner": "submitter"}}},
        ),
        server="guarded",
        caller="submitter",
    ),
    vector(
        "access/job-of-another",
        answered(
            LIST,
            {"labels": {"of": "submitter"}},
            {"jobs": [{"owner": "submitter"}]},
            keep={"job": "reply.jobs.0.name"},
        ),
        refused(DELETE, {"name": "${job}"}, DENIED, "JOB_OF_ANOTHER"),
        refused(CANCEL, {"name": "${job}"}, DENIED, "JOB_OF_ANOTHER"),
        server="guarded",
        caller="other",
    ),
    vector(
        "access/admin",
        answered(
            LIST,
            {"labels": {"of": "submitter"}},
            {"jobs": [{"owner": "submitter"}]},
            keep={"job": "reply.jobs.0.name"},
        ),
        answered(DELETE, {"name": "${job}", "deleteOutput": True}, {}),
        server="guarded",
        caller="admin",
    ),
    vector(
        "access/too-many-calls",
        answered(LIST, {}, {}),
        refused(LIST, {}, "RESOURCE_EXHAUSTED", "TOO_MANY_CALLS", retryable=True),
        server="throttled",
        caller="reader",
    ),
]
