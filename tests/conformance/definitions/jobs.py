"""Jobs from their first event to their last, and everything that can be asked about one."""

from __future__ import annotations

from typing import Any

from tests.conformance.definitions import tiny
from tests.conformance.definitions.writing import (
    ABSENT,
    CANCEL,
    DELETE,
    GET,
    INT8,
    INVALID,
    LIST,
    NF4,
    NOT_FOUND,
    PRECONDITION,
    QUANTIZE,
    TOKENS,
    WATCH,
    answered,
    call,
    gguf,
    refused,
    some,
    spec,
    vector,
)
from tests.conformance.vector import Step, Vector

SUCCEEDED = ["QUEUED", "RUNNING", "SUCCEEDED"]
ID = "7f3c1b52-8f62-4f4c-9d3e-0c8b6f1f2a11"
OTHER_ID = "0b1f7d8e-5a52-4c7e-9a55-3d5a0b7f9c10"
NAME = {"name": "${job}"}
KEEP = {"keep": {"job": "events.name"}}
SEEN = {"keep": {"job": "snapshot.name"}}


def quantize(
    source: str,
    method: dict[str, Any],
    output: str,
    events: dict[str, Any] | None = None,
    **more: Any,
) -> Step:
    """A job that is followed to its end, which has to be as ``events`` says."""
    members = {name: more.pop(name) for name in ("calibration", "allowNonFinite") if name in more}
    request = {"spec": spec(source, method, output, **members), **more}
    expected = {"events": {"states": SUCCEEDED, "warnings": [], **(events or {})}}
    return call(QUANTIZE, request, expect=expected, **KEEP)


def begun(output: str, name: str = "job", *, wait: bool = True, **more: Any) -> list[Step]:
    """A job that takes seconds, begun; ``wait``: a worker has it already."""
    request = {"spec": spec("slow", gguf("IQ4_XS"), output), **more}
    state = "JOB_STATE_RUNNING" if wait else "JOB_STATE_QUEUED"
    return [
        call(QUANTIZE, request, **{"as": name}),
        {"until": name, "see": {"snapshot": {"state": state}}, "keep": {name: "snapshot.name"}},
    ]


def result_of(**members: Any) -> dict[str, Any]:
    """A job that succeeded."""
    return {"state": "JOB_STATE_SUCCEEDED", "result": members}


def life_of_a_job() -> list[Step]:
    """From the request to the deletion."""
    labels = {"team": "a", "life": "1"}
    progress = {"tensorsDone": "20", "tensorsTotal": "20", "bytesDone": str(tiny.SOURCE_BYTES)}
    return [
        quantize(
            "tiny",
            gguf("Q8_0"),
            "model.gguf",
            {
                # 14 linears and the embedding in blocks of 32; norms stay floats.
                "types": {"Q8_0": tiny.LINEAR_COUNT + 1, "F32": tiny.NORM_COUNT},
                "stages": ["PREPARING", "QUANTIZING", "FINALIZING"],
                "tensors": {
                    "blk.0.attn_q.weight": {
                        "shape": ["64", "64"],
                        "sourceType": "BF16",
                        # Rows of 64 weights: two blocks of 34 bytes.
                        "sizeBytes": str(64 * 2 * 34),
                        "relativeError": {"$between": [0.0005, 0.01]},
                    },
                    "output_norm.weight": {"sizeBytes": "256", "relativeError": ABSENT},
                },
                "first": {"labels": labels, "requestId": ID, "lastSequence": "1"},
                "last": {
                    "progress": progress,
                    "labels": labels,
                    "requestId": ID,
                    **result_of(
                        outputUri="${outputs}/model.gguf",
                        sourceBytes=str(tiny.SOURCE_BYTES),
                        files=some({"name": "model.gguf", "sha256": {"$text": "^[0-9a-f]{64}$"}}),
                        relativeError={"$between": [0.0005, 0.01]},
                    ),
                },
            },
            labels=labels,
            requestId=ID,
        ),
        answered(GET, NAME, {"job": {"name": "${job}", **result_of(evaluation=None)}}),
        answered(LIST, {"labels": {"life": "1"}}, {"jobs": [{"name": "${job}"}]}),
        call(WATCH, NAME, expect={"events": {"states": SUCCEEDED, "name": "${job}"}}),
        answered(
            CANCEL,
            {"name": "${job}", "reason": "too late"},
            {"job": {"state": "JOB_STATE_SUCCEEDED"}},
        ),
        answered(DELETE, {"name": "${job}", "deleteOutput": True}, {}),
        refused(GET, NAME, NOT_FOUND, "JOB_NOT_FOUND"),
        # What is deleted leaves its place to others.
        quantize("tiny", gguf("Q8_0"), "model.gguf"),
    ]


def idempotence() -> list[Step]:
    """The same request twice is one job; another one under its id is refused."""
    request = {"spec": spec("tiny", NF4, "out"), "requestId": OTHER_ID}
    other = {"spec": spec("tiny", INT8, "out"), "requestId": OTHER_ID}
    same = {"events": {"states": SUCCEEDED, "name": "${job}", "first": {"requestId": OTHER_ID}}}
    return [
        call(QUANTIZE, request, expect={"events": {"states": SUCCEEDED}}, **KEEP),
        call(QUANTIZE, request, expect=same),
        refused(QUANTIZE, other, "ALREADY_EXISTS", "REQUEST_ID_REUSED"),
        answered(GET, NAME, {"job": result_of()}),
    ]


def cancelled_while_it_runs() -> list[Step]:
    """Cancelling ends the job, and its stream with a job that says so."""
    return [
        *begun("x.gguf"),
        refused(DELETE, NAME, PRECONDITION, "JOB_NOT_FINISHED", "name"),
        answered(CANCEL, {"name": "${job}", "reason": "no need"}, {"job": {"name": "${job}"}}),
        {
            "end": "job",
            "expect": {
                "events": {
                    "states": ["QUEUED", "RUNNING", "CANCELLING", "CANCELLED"],
                    "final": {
                        "code": "CANCELLED",
                        "reason": "CANCELLED",
                        "message": {"$text": "no need"},
                    },
                }
            },
        },
        answered(DELETE, NAME, {}),
    ]


def left_while_it_runs() -> list[Step]:
    """Leaving a stream does not stop the job."""
    dropped = {"code": "CANCELLED"}
    return [
        *begun("x.gguf"),
        {"drop": "job"},
        {"end": "job", "expect": {"error": dropped}},
        refused(
            WATCH,
            {"name": "${job}", "afterSequence": "1000000"},
            "OUT_OF_RANGE",
            "SEQUENCE_OUT_OF_RANGE",
        ),
        call(WATCH, NAME, expect={"events": {"states": SUCCEEDED}}),
        call(
            WATCH,
            {"name": "${job}", "afterSequence": "1"},
            expect={"events": {"states": SUCCEEDED[1:]}},
        ),
    ]


def after_the_last_event() -> list[Step]:
    """Watching from the last event on is over at once; there is nothing beyond it."""
    return [
        call(
            QUANTIZE,
            {"spec": spec("tiny", NF4, "out")},
            expect={"events": {"types": {"NF4": tiny.LINEAR_COUNT, "BF16": 1 + tiny.NORM_COUNT}}},
            keep={"job": "events.name", "last": "events.last.lastSequence"},
        ),
        call(
            WATCH, {"name": "${job}", "afterSequence": "${last}"}, expect={"events": {"count": 0}}
        ),
        refused(
            WATCH,
            {"name": "${job}", "afterSequence": "999999"},
            "OUT_OF_RANGE",
            "SEQUENCE_OUT_OF_RANGE",
        ),
    ]


def one_output_for_two() -> list[Step]:
    """A job that has not ended keeps its output for itself."""
    asked = {"spec": spec("slow", gguf("IQ4_XS"), "x.gguf")}
    return [
        *begun("x.gguf"),
        refused(QUANTIZE, asked, PRECONDITION, "OUTPUT_IN_USE", "spec.output_uri"),
        answered(CANCEL, NAME, {}),
        {"end": "job"},
    ]


def listing() -> list[Step]:
    """Filters, pages, and tokens of pages."""
    steps = [
        quantize("tiny", NF4, f"out-{number}", labels={"list": "1", "number": str(number)})
        for number in range(3)
    ]
    steps[0]["keep"], steps[1]["keep"], steps[2]["keep"] = (
        {name: "events.name"} for name in ("first", "second", "third")
    )
    labels = {"list": "1"}
    page = {"labels": labels, "pageSize": 2}
    return [
        *steps,
        answered(
            LIST,
            {"labels": labels},
            {
                "jobs": [{"name": "${third}"}, {"name": "${second}"}, {"name": "${first}"}],
                "nextPageToken": ABSENT,
            },
        ),
        answered(
            LIST,
            page,
            {"jobs": [{"name": "${third}"}, {"name": "${second}"}]},
            keep={"token": "reply.nextPageToken"},
        ),
        answered(
            LIST,
            {**page, "pageToken": "${token}"},
            {"jobs": [{"name": "${first}"}], "nextPageToken": ABSENT},
        ),
        refused(
            LIST,
            {"labels": {"list": "2"}, "pageSize": 2, "pageToken": "${token}"},
            INVALID,
            "PAGE_TOKEN_INVALID",
            "page_token",
        ),
        answered(LIST, {"labels": {"list": "1", "number": "1"}}, {"jobs": [{"name": "${second}"}]}),
        answered(LIST, {"labels": labels, "states": ["JOB_STATE_FAILED"]}, {"jobs": []}),
        answered(LIST, {"labels": labels, "methods": ["METHOD_GGUF"]}, {"jobs": []}),
        answered(
            LIST,
            {"labels": labels, "methods": ["METHOD_BITSANDBYTES_4BIT", "METHOD_GGUF"]},
            {"jobs": {"$length": 3}},
        ),
        answered(LIST, {"labels": labels, "createdFrom": "2100-01-01T00:00:00Z"}, {"jobs": []}),
        answered(LIST, {"labels": labels, "createdUntil": "2000-01-01T00:00:00Z"}, {"jobs": []}),
        answered(
            LIST,
            {"labels": labels, "createdFrom": "2000-01-01T00:00:00Z"},
            {"jobs": {"$length": 3}},
        ),
    ]


def calibrated(method: dict[str, Any], kind: str, **events: Any) -> Step:
    """A job of a method that calibrates, on token ids of the request."""
    expected = {
        "types": {kind: tiny.LINEAR_COUNT, "BF16": 1 + tiny.NORM_COUNT},
        "last": result_of(
            calibration={"samplesRequested": 8, "samplesUsable": 8, "tokens": "256"},
            relativeError={"$between": [0.01, 0.5]},
        ),
        **events,
    }
    return quantize("tiny", method, "out", expected, calibration=TOKENS)


VECTORS: list[Vector] = [
    vector("job/life", *life_of_a_job()),
    vector("job/request-id", *idempotence()),
    vector("job/cancel", *cancelled_while_it_runs(), is_slow=True),
    vector("job/leave", *left_while_it_runs(), is_slow=True),
    vector("job/last-event", *after_the_last_event()),
    vector("job/output-in-use", *one_output_for_two(), is_slow=True),
    vector("job/list", *listing(), is_slow=True),
]
