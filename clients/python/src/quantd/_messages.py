"""Fills messages from plain Python values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

from quantd import _enumerations


def fill(message: Message, fields: Mapping[str, Any]) -> None:
    """Sets the fields that are not None, taking enumerations by name and messages as mappings.

    Raises:
        TypeError: There is no such field, or a value has the wrong type.
        ValueError: A value does not fit its field. Both messages name the field.
    """
    known = message.DESCRIPTOR.fields_by_name
    for name, value in fields.items():
        if name not in known:
            raise TypeError(
                f"{message.DESCRIPTOR.name} has no field {name!r}; it has {', '.join(known)}"
            )
        if value is None:
            continue
        _set(message, known[name], value)


def _set(message: Message, field: Any, value: Any) -> None:
    # `field` is a FieldDescriptor; its type differs between the implementations of protobuf.
    try:
        if not field.is_repeated:
            setattr(message, field.name, _scalar(field, value))
            return
        if isinstance(value, str | bytes | Mapping):
            raise TypeError(f"got {value!r}, but several values are expected, as a list")
        target = getattr(message, field.name)
        for item in value:
            if field.message_type is not None:
                fill(target.add(), item)
            else:
                target.append(_scalar(field, item))
    except (TypeError, ValueError) as error:
        text = str(error)
        named = text if text.startswith(f"{field.name}: ") else f"{field.name}: {text}"
        raise type(error)(named) from None


def _scalar(field: Any, value: Any) -> Any:
    if field.enum_type is None:
        return value
    return _enumerations.number_of(field.enum_type, value, field.name)
