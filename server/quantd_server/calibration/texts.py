"""Where texts come from: the request, a file of the server, or the text that is built in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quantd_server.calibration.chat_template import Messages
from quantd_server.calibration.config import CalibrationFile
from quantd_server.calibration.text_file import Record, TextFile
from quantd_server.errors import QuantdError, quoted

CALIBRATION_TEXT = Path(__file__).parent / "builtin" / "calibration.txt"
EVALUATION_TEXT = Path(__file__).parent / "builtin" / "evaluation.txt"

Text = tuple[str | Messages, str]
"""A text or a conversation, and where it is, for messages."""


def request_texts(texts: tuple[str, ...]) -> Iterator[Text]:
    """The texts of a request."""
    for number, text in enumerate(texts):
        yield text, f"text {number}"


def file_texts(
    file: TextFile, config: CalibrationFile, *, chat: bool, field: str
) -> Iterator[Text]:
    """The texts of a file; with ``chat`` the field of a JSON line may hold messages.

    Raises QuantdError JSON_LINE_INVALID or JSON_FIELD_INVALID, or what ``TextFile.records`` does.
    """
    name = json_field(config, chat=chat)
    for record in file.records():
        if file.is_json:
            yield _value(record, name, chat=chat, field=field), record.place
        else:
            yield record.text, record.place


def json_field(config: CalibrationFile, *, chat: bool) -> str:
    """The field of a JSON line to read."""
    return config.json_field or ("messages" if chat else "text")


def _value(record: Record, name: str, *, chat: bool, field: str) -> str | Messages:
    try:
        line = json.loads(record.text)
        # Half a surrogate pair ("\\ud800") parses, but is no text for a tokenizer.
        json.dumps(line, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        fault = error.msg if isinstance(error, json.JSONDecodeError) else "it cannot be parsed"
        raise QuantdError(
            reason="JSON_LINE_INVALID",
            field=f"{field}.uri",
            kind="precondition",
            message=f"{record.place} is not JSON: {fault}",
            remedy="write one JSON object a line",
        ) from None
    if not isinstance(line, dict) or name not in line:
        keys = ", ".join(map(quoted, list(line)[:8])) if isinstance(line, dict) else "no object"
        raise _field_error(
            field, f"{record.place} has no field {quoted(name)}; it has {keys or 'none'}"
        )
    value = line[name]
    if isinstance(value, str):
        return value
    if not chat:
        raise _field_error(
            field, f"field {quoted(name)} of {record.place} is no text but {_kind(value)}"
        )
    if not isinstance(value, list) or not value or not all(map(_is_message, value)):
        raise _field_error(
            field, f"field {quoted(name)} of {record.place} is no list of messages with a role"
        )
    return value


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("role"), str)


def _kind(value: Any) -> str:
    kinds = {list: "a list", dict: "an object", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")


def _field_error(field: str, message: str) -> QuantdError:
    return QuantdError(
        reason="JSON_FIELD_INVALID",
        field=f"{field}.json_field",
        kind="precondition",
        message=message,
        remedy="name the field that holds the text (with apply_chat_template: the text or the "
        "messages) in json_field, and leave out lines without it",
    )
