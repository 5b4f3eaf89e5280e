"""Vectors: what is asked of a server through a client, and what has to come back.

A vector is JSON, so that no language is needed to read it; docs/conformance.md describes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from quantd import v1

FOLDER = Path(__file__).parent / "vectors"

Step = dict[str, Any]

METHODS: dict[str, MethodDescriptor] = {
    f"{service.full_name}/{method.name}": method
    for module in (v1.quantization_service_pb2, v1.job_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
"""By the name that steps use: "quantd.v1.JobService/GetJob"."""


@dataclass(frozen=True)
class Vector:
    """One line of the matrix."""

    name: str
    server: str
    """The kind of server it needs, of `servers.KINDS`."""
    steps: list[Step]
    needs: str = ""
    """What the machine has to be for it, of `servers.NEEDS`; empty for any."""
    caller: str = ""
    """Whose token the client has, of `servers.CALLERS`; empty for none."""
    is_slow: bool = False
    """Whether it takes more than some seconds."""


def load(folder: Path = FOLDER) -> list[Vector]:
    """All vectors, in the order of their files."""
    return [
        Vector(**members)
        for path in sorted(folder.glob("*.json"))
        for members in json.loads(path.read_text(encoding="utf-8"))
    ]


def all_steps(steps: list[Step]) -> Iterator[Step]:
    """Steps and those inside of repeated ones."""
    for step in steps:
        yield step
        yield from all_steps(step.get("steps", []))


def calls(vector: Vector) -> Iterator[Step]:
    """The steps that make a call."""
    return (step for step in all_steps(vector.steps) if "call" in step)


def request_of(call: str) -> type[Message]:
    """The message that an RPC takes."""
    return GetMessageClass(METHODS[call].input_type)


def answer_of(call: str) -> type[Message]:
    """The message that a client hands on: the reply, or one event of a stream."""
    method = METHODS[call]
    return v1.JobEvent if method.server_streaming else GetMessageClass(method.output_type)


def reasons_in(expected: Any) -> Iterator[str]:
    """The reason codes that an expectation names, wherever they stand."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            if key == "reason" and isinstance(value, str):
                yield value
            elif key == "warnings":
                yield from value["$some"] if isinstance(value, dict) else value
            else:
                yield from reasons_in(value)
    elif isinstance(expected, list):
        for each in expected:
            yield from reasons_in(each)


def check_names(expected: Any, descriptor: Descriptor) -> None:
    """Raises ValueError when an expectation names a field that the message does not have."""
    if isinstance(expected, list):
        for each in expected:
            check_names(each, descriptor)
        return
    if not isinstance(expected, dict):
        return
    for key, value in expected.items():
        if key in {"$some", "$none", "$each"}:
            check_names(value, descriptor)
            continue
        if key.startswith("$"):
            continue
        field = descriptor.fields_by_camelcase_name.get(key)
        if field is None:
            raise ValueError(f"{descriptor.name} has no field {key}")
        is_map = field.message_type and field.message_type.GetOptions().map_entry
        if field.message_type and not is_map and descriptor.file.package == "quantd.v1":
            check_names(value, field.message_type)
