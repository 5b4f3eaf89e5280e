"""Plays one vector through one runner, and says what is not as it should be."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format
from tests.conformance.matching import differences, matches, plain, shown
from tests.conformance.runner import Call, Runner, RunnerError
from tests.conformance.servers import Server
from tests.conformance.vector import METHODS, Step, Vector, answer_of, request_of

import quantd
from quantd import v1
from quantd._errors import error_of_call

CALL_SECONDS = 60.0
STREAM_SECONDS = 180.0
SEE_SECONDS = 60.0

VOLATILE = {
    "GetCapabilities": ("host", "devices", "torch"),
    "InspectCheckpoint": ("loads",),
    "PlanQuantization": ("peakMemoryBytes", "estimatedDuration", "estimateBasis"),
}
"""Fields of a reply that may change from one moment to the next; of those RPCs that change nothing,
so that the harness can ask the same by itself."""


class Play:
    """One vector, played."""

    def __init__(self, vector: Vector, runner: Runner, server: Server) -> None:
        self._vector = vector
        self._runner = runner
        self._server = server
        outputs = server.outputs / re.sub(r"\W", "-", vector.name)
        outputs.mkdir(exist_ok=True)
        (outputs / "taken.gguf").touch()
        self._values = {"sources": str(server.sources), "outputs": str(outputs)}
        self._started: dict[str, Call] = {}
        self._failures: list[str] = []

    def run(self) -> list[str]:
        """What went wrong; nothing, if all is well."""
        try:
            self._play(self._vector.steps)
        except (RunnerError, grpc.RpcError, OSError, RuntimeError) as error:
            self._failures.append(f"{type(error).__name__}: {error}")
        return self._failures

    def _play(self, steps: list[Step]) -> None:
        for step in steps:
            if self._failures:
                return
            if "call" in step:
                call = self._begin(step)
                if "as" in step:
                    self._started[step["as"]] = call
                else:
                    self._check(call, step)
            elif "until" in step:
                self._see(self._started[step["until"]], step)
            elif "end" in step:
                self._check(self._started[step["end"]], step)
            elif "drop" in step:
                self._runner.drop(self._started[step["drop"]])
            elif "server" in step:
                for action in step["server"].split():
                    getattr(self._server, action)()
            elif "damage" in step:
                _damage(Path(self._filled(step["damage"])))
            elif "repeat" in step:
                for _ in range(step["repeat"]):
                    self._play(step["steps"])

    def _begin(self, step: Step) -> Call:
        streams = METHODS[step["call"]].server_streaming
        seconds = step.get("seconds", STREAM_SECONDS if streams else CALL_SECONDS)
        return self._runner.call(step["call"], self._filled(step.get("request", {})), seconds)

    def _filled(self, value: Any) -> Any:
        """The value with what its placeholders stand for."""
        text = json.dumps(value)
        for name, known in self._values.items():
            text = text.replace(f"${{{name}}}", known)
        return json.loads(text)

    def _keep(self, step: Step, known: Any) -> None:
        for name, path in step.get("keep", {}).items():
            value = known
            for part in path.split("."):
                value = value[int(part)] if part.isdecimal() else value[part]
            self._values[name] = str(value)

    def _see(self, call: Call, step: Step) -> None:
        """Takes in events until one is like that of the step."""
        deadline = time.monotonic() + SEE_SECONDS
        wanted = self._filled(step["see"])
        while (event := call.next_event(deadline)) is not None:
            message = json_format.ParseDict(event, v1.JobEvent())
            if matches(wanted, plain(message)):
                self._keep(step, plain(message))
                return
        self._fail(call, f"the call ended before there was an event like {shown(wanted)}")

    def _check(self, call: Call, step: Step) -> None:
        last = call.finish(time.monotonic() + STREAM_SECONDS)
        expected = self._filled(step.get("expect", {}))
        is_late = expected.pop("late", False)
        try:
            actual = self._outcome(call, last)
        except (json_format.ParseError, RunnerError) as error:
            self._fail(call, str(error))
            return
        if "error" in last and "error" not in expected:
            self._fail(call, f"failed: {shown(last['error'])}")
            return
        for difference in differences(expected, actual):
            self._fail(call, difference)
        if METHODS[call.rpc].server_streaming:
            for complaint in self._sequence_faults(call, actual, last, is_late=is_late):
                self._fail(call, complaint)
        elif self._is_comparable(step):
            for difference in self._unlike_a_bare_call(call, last):
                self._fail(call, difference)
        if not self._failures:
            self._keep(step, actual)

    def _is_comparable(self, step: Step) -> bool:
        """Whether a bare call at another moment has the same answer."""
        kind = self._server.kind
        return kind.is_shared and not kind.is_guarded and not step.get("unsteady")

    def _outcome(self, call: Call, last: dict[str, Any]) -> dict[str, Any]:
        """What expectations are compared with."""
        outcome: dict[str, Any] = {}
        if "reply" in last:
            outcome["reply"] = plain(json_format.ParseDict(last["reply"], answer_of(call.rpc)()))
        elif "error" in last:
            outcome["error"] = {"violations": [], **last["error"]}
        elif not last.get("end"):
            raise RunnerError(f"{shown(last)} is not what ends a call")
        if METHODS[call.rpc].server_streaming:
            outcome["events"] = told([plain(event) for event in stored(call)])
        return outcome

    def _sequence_faults(
        self, call: Call, actual: dict[str, Any], last: dict[str, Any], *, is_late: bool
    ) -> Iterator[str]:
        """Events that are lost or come twice, and those that are not what the server keeps.

        ``is_late``: the server does not keep all of them.
        """
        events = stored(call)
        after = int(call.request.get("afterSequence", 0))
        sequences = [event.sequence for event in events]
        for before, event in zip([after, *sequences], events, strict=False):
            # Who is late gets a snapshot, which stands for what is no longer kept.
            is_jump = is_late and event.sequence > before and event.HasField("snapshot")
            if event.sequence != before + 1 and not is_jump:
                yield f"sequences after {after} are {sequences}"
                break
        name = actual["events"]["name"] or call.request.get("name", "")
        is_kept = not is_late and self._server.is_running and not self._server.kind.is_guarded
        if "end" in last and name and is_kept:
            kept = self._server.log_of(name, after)
            # As JSON: the bytes inside of an Any may be in another order.
            if kept is not None and list(map(plain, kept)) != list(map(plain, events)):
                yield f"{len(events)} events are not the {len(kept)} that the server keeps"

    def _unlike_a_bare_call(self, call: Call, last: dict[str, Any]) -> Iterator[str]:
        """Differences from what the harness gets for the same request, without a client."""
        method = METHODS[call.rpc].name
        if method not in VOLATILE:
            return
        request = json_format.ParseDict(call.request, request_of(call.rpc)())
        with self._server.channel() as channel:
            try:
                reply = getattr(v1.QuantizationServiceStub(channel), method)(request, timeout=60)
            except grpc.RpcError as error:
                yield from differences(bare_error(error), last.get("error"), "error")
                return
        if "reply" not in last:
            yield f"a bare call has a reply, this one {shown(last)}"
            return
        got = json_format.ParseDict(last["reply"], answer_of(call.rpc)())
        yield from differences(
            without(plain(reply), VOLATILE[method]), without(plain(got), VOLATILE[method]), "reply"
        )

    def _fail(self, call: Call, what: str) -> None:
        self._failures.append(f"{call.rpc.rpartition('/')[2]}: {what}")


def _damage(folder: Path) -> None:
    """Changes the last bytes of a checkpoint's weights, in a new file of the same size."""
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(data[:-2] + bytes(each ^ 1 for each in data[-2:]))


def stored(call: Call) -> list[v1.JobEvent]:
    """The events of a call that have a sequence of their own."""
    events = [json_format.ParseDict(event, v1.JobEvent()) for event in call.events]
    return [event for event in events if event.WhichOneof("event") != "heartbeat"]


def told(events: list[dict[str, Any]]) -> dict[str, Any]:
    """What vectors can say about the events of a job."""
    jobs = [event["snapshot"] for event in events if "snapshot" in event]
    tensors = {event["tensor"]["name"]: event["tensor"] for event in events if "tensor" in event}
    types: dict[str, int] = {}
    for tensor in tensors.values():
        types[tensor["targetType"]] = types.get(tensor["targetType"], 0) + 1
    return {
        "count": len(events),
        "name": jobs[0]["name"] if jobs else "",
        "states": [job["state"].removeprefix("JOB_STATE_") for job in jobs],
        "stages": [
            event["stage"]["stage"].removeprefix("JOB_STAGE_")
            for event in events
            if "stage" in event
        ],
        "warnings": [event["warning"]["reason"] for event in events if "warning" in event],
        "tensors": tensors,
        "types": types,
        "first": jobs[0] if jobs else {},
        "last": jobs[-1] if jobs else {},
        "final": describe_end(jobs[-1]) if jobs else {},
    }


def describe_end(job: dict[str, Any]) -> dict[str, Any]:
    """Why a job ended without output, from the status that it carries."""
    if not job.get("error"):
        return {}
    message = json_format.ParseDict(job["error"], v1.Job().error.__class__())
    details = quantd._errors.details_of(message)
    return {"code": details.code.name, "reason": details.reason, "message": details.message}


def bare_error(error: grpc.RpcError) -> dict[str, Any]:
    """The members of an error that a runner has to get right."""
    found = error_of_call(error)
    violations = [(each.field, each.reason, each.message) for each in found.violations]
    violations += [(each.subject, each.reason, each.message) for each in found.preconditions]
    return {
        "code": found.code.name,
        "reason": found.reason,
        "message": found.message,
        "violations": [
            {"field": field, "reason": reason, "description": description}
            for field, reason, description in violations
        ],
    }


def without(value: Any, names: tuple[str, ...]) -> Any:
    """The value without members of these names, at any depth."""
    if isinstance(value, dict):
        return {key: without(each, names) for key, each in value.items() if key not in names}
    if isinstance(value, list):
        return [without(each, names) for each in value]
    return value
