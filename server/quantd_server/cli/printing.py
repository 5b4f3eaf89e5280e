"""Where output goes: results to standard output, everything else to standard error."""

from __future__ import annotations

import functools
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.console import Console

    import quantd


WIDTH_OF_A_FILE = 200
"""Columns where there is no terminal: tables that go to a file or to grep are not folded."""


@functools.cache
def results() -> Console:
    """Standard output, for people."""
    return _console(stderr=False)


@functools.cache
def messages() -> Console:
    """Standard error, for people."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE
    return console


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on one line of standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def as_dict(message: Message) -> dict[str, Any]:
    """A message as protobuf JSON with the spec's field names."""
    # The details of a google.rpc.Status can only be written when their types are known.
    from google.protobuf import json_format
    from google.rpc import error_details_pb2  # noqa: F401

    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def error_as_dict(error: quantd.QuantdError) -> dict[str, Any]:
    """An error of the server or of the way to it."""
    from dataclasses import asdict

    return {
        "error": {
            "code": error.code.name,
            "reason": error.reason,
            "message": error.message,
            "violations": [asdict(violation) for violation in error.violations],
            "preconditions": [asdict(precondition) for precondition in error.preconditions],
            "metadata": dict(error.metadata),
        }
    }
