"""Servers that go and come back, and connections that break: no event is lost, none comes twice."""

from __future__ import annotations

from tests.conformance.definitions.writing import (
    CANCEL,
    GET,
    NF4,
    QUANTIZE,
    WATCH,
    answered,
    call,
    gguf,
    spec,
    vector,
)
from tests.conformance.vector import Step, Vector

ID = "3d0e6c1a-0c55-4b57-8a86-0f4f2f1b7d11"
RUNNING = {"snapshot": {"state": "JOB_STATE_RUNNING"}}
TENSOR = {"tensor": {}}
KEEP = {"keep": {"job": "snapshot.name"}}


def begun(source: str = "slow", output: str = "x.gguf") -> list[Step]:
    """A job that takes seconds, followed until a worker has it."""
    request = {"spec": spec(source, gguf("IQ4_XS"), output), "requestId": ID}
    return [
        call(QUANTIZE, request, **{"as": "job"}),
        {"until": "job", "see": RUNNING, **KEEP},
    ]


def ended(*states: str, warnings: list[str] | None = None) -> Step:
    """The end of the job's stream, with everything between."""
    return {
        "end": "job",
        "expect": {"events": {"states": list(states), "warnings": warnings or []}},
    }


AGAIN = ["QUEUED", "RUNNING"]

killed = [
    *begun(),
    {"until": "job", "see": TENSOR},
    {"server": "kill start"},
    ended(*AGAIN, *AGAIN, "SUCCEEDED", warnings=["JOB_RETRIED"]),
]

killed_before_it_is_watched = [
    *begun(),
    {"drop": "job"},
    {"end": "job", "expect": {"error": {"code": "CANCELLED"}}},
    {"server": "kill start"},
    call(
        WATCH,
        {"name": "${job}"},
        expect={"events": {"states": [*AGAIN, *AGAIN, "SUCCEEDED"], "name": "${job}"}},
    ),
    # The id still means the same job, on another server.
    call(
        QUANTIZE,
        {"spec": spec("slow", gguf("IQ4_XS"), "x.gguf"), "requestId": ID},
        expect={"events": {"states": [*AGAIN, *AGAIN, "SUCCEEDED"], "name": "${job}"}},
    ),
]

killed_too_often = [
    *begun(),
    {"repeat": 2, "steps": [{"server": "kill start"}, {"until": "job", "see": RUNNING}]},
    {"server": "kill start"},
    {
        "end": "job",
        "expect": {
            "events": {
                "states": [*AGAIN, *AGAIN, *AGAIN, "FAILED"],
                "warnings": ["JOB_RETRIED", "JOB_RETRIED"],
                "final": {"code": "UNAVAILABLE", "reason": "TOO_MANY_ATTEMPTS"},
            }
        },
    },
]

cancelled_across_a_kill = [
    *begun(),
    answered(CANCEL, {"name": "${job}", "reason": "enough"}, {}),
    {"server": "kill start"},
    ended(*AGAIN, "CANCELLING", "CANCELLED"),
    answered(GET, {"name": "${job}"}, {"job": {"state": "JOB_STATE_CANCELLED"}}),
]

stopped = [
    *begun(),
    {"until": "job", "see": TENSOR},
    {"server": "stop start"},
    ended(*AGAIN, *AGAIN, "SUCCEEDED"),
]

gone_for_a_while = [
    call(QUANTIZE, {"spec": spec("tiny", NF4, "out")}, expect={}, keep={"job": "events.name"}),
    {"server": "stop"},
    call(WATCH, {"name": "${job}"}, **{"as": "late"}),
    {"server": "start"},
    {"end": "late", "expect": {"events": {"states": [*AGAIN, "SUCCEEDED"], "name": "${job}"}}},
]

connections_cut = [
    *begun(),
    {"repeat": 8, "steps": [{"until": "job", "see": TENSOR}, {"server": "cut"}]},
    ended(*AGAIN, "SUCCEEDED"),
]

worker_killed = [
    *begun(),
    {"until": "job", "see": TENSOR},
    {"server": "kill_worker"},
    {"until": "job", "see": RUNNING},
    {"server": "kill_worker"},
    {
        "end": "job",
        "expect": {
            "events": {
                "states": [*AGAIN, *AGAIN, "FAILED"],
                "warnings": ["JOB_RETRIED"],
                "final": {"code": "RESOURCE_EXHAUSTED", "reason": "WORKER_KILLED"},
            }
        },
    },
]

worker_aborted = [
    *begun(),
    {"server": "abort_worker"},
    {"until": "job", "see": RUNNING},
    {"server": "abort_worker"},
    {"until": "job", "see": RUNNING},
    {"server": "abort_worker"},
    {
        "end": "job",
        "expect": {
            "events": {
                "states": [*AGAIN, *AGAIN, *AGAIN, "FAILED"],
                "warnings": ["JOB_RETRIED", "JOB_RETRIED"],
                "final": {"code": "INTERNAL", "reason": "WORKER_DIED"},
            }
        },
    },
]

source_changed = [
    *begun("brittle"),
    {"server": "kill"},
    {"damage": "${sources}/brittle"},
    {"server": "start"},
    {
        "end": "job",
        "expect": {
            "events": {
                "states": [*AGAIN, *AGAIN, "FAILED"],
                "final": {"code": "FAILED_PRECONDITION", "reason": "SOURCE_CHANGED"},
            }
        },
    },
]

RESTARTS = 20

twenty_restarts = [
    *begun(),
    # A server that is stopped in order counts no attempt, so that a job bears any number of them.
    {
        "repeat": RESTARTS,
        "steps": [{"server": "stop start"}, {"until": "job", "see": RUNNING}],
    },
    ended(*AGAIN * (RESTARTS + 1), "SUCCEEDED"),
]


VECTORS: list[Vector] = [
    vector(f"fault/{name}", *steps, server="durable", is_slow=True)
    for name, steps in {
        "kill": killed,
        "kill-unwatched": killed_before_it_is_watched,
        "kill-too-often": killed_too_often,
        "kill-while-cancelling": cancelled_across_a_kill,
        "stop": stopped,
        "late-server": gone_for_a_while,
        "cut-connections": connections_cut,
        "worker-killed": worker_killed,
        "worker-aborted": worker_aborted,
        "source-changed": source_changed,
        "twenty-restarts": twenty_restarts,
    }.items()
]
