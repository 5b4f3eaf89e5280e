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
    PARSE,
    PRECONDITION,
    QUANTIZE,
    TOKENS,
    WATCH,
    answered,
    aqlm,
    awq,
    call,
    gguf,
    gptq,
    refused,
    some,
    spec,
    tokens,
    vector,
)
from tests.conformance.vector import Step, Vector

SUCCEEDED = ["QUEUED", "RUNNING", "SUCCEEDED"]
ID = "7f3c1b52-8f62-4f4c-9d3e-0c8b6f1f2a11"
OTHER_ID = "0b1f7d8e-5a52-4c7e-9a55-3d5a0b7f9c10"
NAME = {"name": "${job}"}
SPEC = ("calibration", "evaluation", "allowNonFinite")
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
    members = {name: more.pop(name) for name in SPEC if name in more}
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


def failed(code: str, reason: str, message: str = ".") -> dict[str, Any]:
    """The events of a job that fails while it runs."""
    final = {"code": code, "reason": reason, "message": {"$text": message}}
    return {"states": ["QUEUED", "RUNNING", "FAILED"], "final": final}


def calibrated(
    source: str, method: dict[str, Any], kind: str, warnings: list[str], **more: Any
) -> Step:
    """A job of a method that calibrates, on token ids of the request, with these warnings."""
    usage = {"samplesRequested": 8, "samplesUsable": 8, "tokens": "256"}
    done = {"progress": {"blocksDone": tiny.BLOCKS, "blocksTotal": tiny.BLOCKS}}
    result = result_of(calibration=usage, **more.pop("result", {}))
    expected = {
        "types": more.pop("types", {kind: tiny.LINEAR_COUNT}),
        "warnings": warnings,
        "last": {**result, **done},
    }
    return quantize(source, method, "out", expected, **{"calibration": TOKENS, **more})


def plain_gptq() -> Step:
    """GPTQ as it is meant to be, measured at the end."""
    measured = {
        "tokens": "62",
        "sourcePerplexity": {"$between": [100, 1000]},
        "perplexity": {"$between": [100, 1000]},
        "klDivergence": {"$between": [0, 1]},
        "topTokenAgreement": {"$between": [0, 1]},
    }
    result = {"evaluation": measured, "relativeError": {"$between": [0.01, 0.3]}}
    step = calibrated(
        "tiny",
        gptq(),
        "GPTQ4",
        [],
        result=result,
        evaluation=tokens(range(1, 33), range(40, 72)),
    )
    down = {"model.layers.1.mlp.down_proj.qweight": {"outputError": {"$between": [0.001, 1]}}}
    step["expect"]["events"]["tensors"] = down
    step["expect"]["events"]["stages"] = some("CALIBRATING", "QUANTIZING", "EVALUATING")
    return step


def few_tokens() -> Step:
    """Too few tokens to learn from, and a model whose logits are infinite."""
    warnings = {"$some": ["NON_FINITE_WEIGHTS", "TOO_FEW_TOKENS", "EVALUATION_NOT_FINITE"]}
    data = {"calibration": tokens([5, 6, 7]), "evaluation": tokens(range(1, 33))}
    expected = {"warnings": warnings, "types": {"GPTQ4": tiny.LINEAR_COUNT}}
    return quantize("endless-norm", gptq(), "out", expected, allowNonFinite=True, **data)


CALIBRATED: dict[str, Step] = {
    "gptq": plain_gptq(),
    "awq": calibrated(
        "huge-inputs",
        awq(modulesToNotConvert=["model.layers.0.mlp.up_proj"], gptqSolver=True),
        "AWQ4",
        ["SECOND_MOMENT_INDEFINITE"],
        types={"AWQ4": tiny.LINEAR_COUNT - 1},
    ),
    "aqlm": calibrated(
        "huge-weights",
        aqlm(),
        "AQLM2x4",
        ["WEIGHTS_SATURATED", "EVALUATION_TOO_SHORT"],
        evaluation=tokens([5], [6]),
    ),
    "few-tokens": few_tokens(),
    "parameter-not-float": quantize(
        "int-norm",
        gptq(),
        "out",
        failed(PRECONDITION, "PARAMETER_NOT_FLOAT", "model.norm.weight"),
        calibration=TOKENS,
    ),
    "architecture": quantize(
        "head-missing",
        gptq(),
        "out",
        failed(PRECONDITION, "ARCHITECTURE_NOT_SUPPORTED"),
        calibration=TOKENS,
    ),
}

FAILING: dict[str, Step] = {
    "not-finite": quantize(
        "not-a-number",
        NF4,
        "out",
        failed(PRECONDITION, "NON_FINITE_WEIGHTS", "q_proj.weight.*element 66"),
    ),
    "not-finite-allowed": quantize(
        "not-a-number", NF4, "out", {"warnings": ["NON_FINITE_WEIGHTS"]}, allowNonFinite=True
    ),
    "out-of-range": quantize(
        "beyond-float16", INT8, "out", failed(PRECONDITION, "WEIGHTS_OUT_OF_RANGE", "q_proj")
    ),
}


def a_full_queue() -> list[Step]:
    """One job runs, one waits, and there is no place for a third."""
    asked = {"spec": spec("tiny", NF4, "third")}
    return [
        *begun("x.gguf", "running"),
        *begun("y.gguf", "waiting", wait=False),
        answered(GET, {"name": "${waiting}"}, {"job": {"queuePosition": 0}}),
        refused(QUANTIZE, asked, "RESOURCE_EXHAUSTED", "QUEUE_FULL", retryable=True),
        answered(CANCEL, {"name": "${waiting}"}, {"job": {"state": "JOB_STATE_CANCELLED"}}),
        {"end": "waiting", "expect": {"events": {"states": ["QUEUED", "CANCELLED"]}}},
        answered(CANCEL, {"name": "${running}"}, {}),
        {"end": "running", "expect": {"late": True}},
    ]


def late_watcher() -> list[Step]:
    """What is no longer kept is told by a snapshot that stands for it."""
    late = {"late": True, "events": {"states": ["SUCCEEDED"], "last": {"name": "${job}"}}}
    return [
        call(QUANTIZE, {"spec": spec("tiny", NF4, "out")}, expect={"late": True}, **KEEP),
        call(WATCH, NAME, expect={"late": True, "events": {"states": {"$some": ["SUCCEEDED"]}}}),
        call(WATCH, {"name": "${job}", "afterSequence": "3"}, expect=late),
    ]


def a_server_without_state() -> list[Step]:
    """A server that keeps nothing ends its jobs with itself."""
    final = {"code": "UNAVAILABLE", "reason": "SERVER_STOPPED"}
    states = ["QUEUED", "RUNNING", "CANCELLING", "FAILED"]
    return [
        *begun("x.gguf"),
        {"server": "stop"},
        {
            "end": "job",
            "expect": {"events": {"states": states, "final": final}},
        },
    ]


def a_large_request() -> list[Step]:
    """A request beyond what the server takes is refused, and the next one is answered."""
    large = {"configJson": '{"a": "' + "x" * 30_000 + '"}'}
    return [
        call(PARSE, large, expect={"error": {"code": "RESOURCE_EXHAUSTED"}}),
        answered(PARSE, {"configJson": "{}"}, {"status": "CONFIG_STATUS_NOT_QUANTIZED"}),
    ]


VECTORS: list[Vector] = [
    vector("job/life", *life_of_a_job()),
    vector("job/request-id", *idempotence()),
    vector("job/cancel", *cancelled_while_it_runs(), is_slow=True),
    vector("job/leave", *left_while_it_runs(), is_slow=True),
    vector("job/last-event", *after_the_last_event()),
    vector("job/output-in-use", *one_output_for_two(), is_slow=True),
    vector("job/list", *listing(), is_slow=True),
    *(vector(f"job/{name}", step) for name, step in FAILING.items()),
    *(vector(f"job/{name}", step, is_slow=True) for name, step in CALIBRATED.items()),
    vector("job/queue-full", *a_full_queue(), server="narrow", is_slow=True),
    vector("job/late-watcher", *late_watcher(), server="narrow", is_slow=True),
    vector("job/large-request", *a_large_request(), server="narrow", is_slow=True),
    vector("job/server-without-state", *a_server_without_state(), server="forgetful", is_slow=True),
]
