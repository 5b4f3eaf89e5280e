"""Messages to domain values and back, by their descriptors.

Domain structs have the fields of the messages under the same names, so one translator serves them
all. Three things differ: enumerations are names without their prefix ("NF4"), timestamps and
durations are seconds as floats, and what is unset is None.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status

from quantd_server.api.error_codec import status_of
from quantd_server.errors import Finding

SomeMessage = TypeVar("SomeMessage", bound=Message)
SomeStruct = TypeVar("SomeStruct", bound=msgspec.Struct)

Field = Any
"""A FieldDescriptor: two classes that do not know each other have its stubs."""
NANOS = 1_000_000_000
TIMES = frozenset({Timestamp.DESCRIPTOR.full_name, Duration.DESCRIPTOR.full_name})
SECONDS_LIMITS = {
    Timestamp.DESCRIPTOR.full_name: (-62_135_596_800, 253_402_300_799),
    Duration.DESCRIPTOR.full_name: (-315_576_000_000, 315_576_000_000),
}
"""What the two types can say, from their definitions."""

FINDING_KIND = "quantd.v1.FindingKind"
REQUEST_KINDS = frozenset({"INVALID", "NOT_FOUND", "UNIMPLEMENTED"})


def to_message(value: msgspec.Struct, message_class: type[SomeMessage]) -> SomeMessage:
    """``value`` as a message. Fields that only one of the two has are left out."""
    message = message_class()
    _fill(message, value)
    return message


def from_message(message: Message, struct: type[SomeStruct]) -> SomeStruct:
    """``message`` as a ``struct``; fields that the struct does not have are left out.

    Raises msgspec.ValidationError when a value is not one that the struct allows.
    """
    return msgspec.convert(_builtins(message), struct)


@functools.cache
def enum_prefix(descriptor: EnumDescriptor) -> str:
    """What all value names of an enumeration start with: "FOUR_BIT_TYPE_"."""
    return descriptor.values_by_number[0].name.removesuffix("UNSPECIFIED")


def enum_name(descriptor: EnumDescriptor, number: int) -> str:
    """Name of a value without prefix; numbers this version does not know give "VALUE_99"."""
    value = descriptor.values_by_number.get(number)
    return value.name.removeprefix(enum_prefix(descriptor)) if value else f"VALUE_{number}"


# -- domain to message -------------------------------------------------------------------------


def _fill(message: Message, value: msgspec.Struct) -> None:
    for field in message.DESCRIPTOR.fields:
        item = getattr(value, field.name, None)
        if item is None:
            continue
        if _is_map(field):
            _fill_map(getattr(message, field.name), field, item)
        elif field.is_repeated:
            _fill_repeated(getattr(message, field.name), field, item)
        elif field.message_type is not None:
            _fill_submessage(getattr(message, field.name), item)
        else:
            setattr(message, field.name, _scalar_to_message(field, item))


def _fill_map(container: Any, field: Field, item: Mapping[Any, Any]) -> None:
    value_field = field.message_type.fields_by_name["value"]
    for key, value in item.items():
        if value_field.message_type is not None:
            _fill_submessage(container[key], value)
        else:
            container[key] = _scalar_to_message(value_field, value)


def _fill_repeated(container: Any, field: Field, item: Any) -> None:
    if field.message_type is None:
        container.extend([_scalar_to_message(field, value) for value in item])
        return
    for value in item:
        _fill_submessage(container.add(), value)


def _fill_submessage(message: Message, item: Any) -> None:
    if isinstance(message, Timestamp | Duration):
        _set_seconds(message, item)
    elif isinstance(message, Status):
        assert isinstance(item, Finding)
        message.CopyFrom(status_of([item]))
    else:
        message.SetInParent()  # a message without fields of its own still says that it is set
        _fill(message, item)


def _set_seconds(message: Timestamp | Duration, seconds: float) -> None:
    lowest, highest = SECONDS_LIMITS[message.DESCRIPTOR.full_name]
    seconds = min(max(seconds, lowest), highest)
    if math.isnan(seconds):
        seconds = 0.0
    whole = math.floor(seconds) if isinstance(message, Timestamp) else math.trunc(seconds)
    nanos = round((seconds - whole) * NANOS)
    if abs(nanos) == NANOS:
        whole, nanos = whole + nanos // NANOS, 0
    message.SetInParent()
    message.seconds, message.nanos = whole, nanos


def _scalar_to_message(field: Field, item: Any) -> Any:
    if field.enum_type is not None:
        return _enum_number(field.enum_type, item)
    if field.type == FieldDescriptor.TYPE_STRING and not item.isascii():
        return item.encode("utf-8", "replace").decode()  # file names may hold lone surrogates
    return item


def _enum_number(descriptor: EnumDescriptor, name: str) -> int:
    if descriptor.full_name == FINDING_KIND:
        # The domain tells more kinds apart than a finding in an answer has to.
        name = name.upper() if name.upper() in REQUEST_KINDS else "PRECONDITION"
    return descriptor.values_by_name[enum_prefix(descriptor) + name].number


# -- message to domain -------------------------------------------------------------------------


def _builtins(message: Message) -> dict[str, Any]:
    values: dict[str, Any] = {}
    field: Field
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        item = getattr(message, field.name)
        if _is_map(field):
            value_field = field.message_type.fields_by_name["value"]
            values[field.name] = {key: _from_item(value_field, item[key]) for key in item}
        elif field.is_repeated:
            values[field.name] = [_from_item(field, value) for value in item]
        elif field.enum_type is not None and item == 0:
            continue  # UNSPECIFIED, said on purpose: the same as unset
        else:
            values[field.name] = _from_item(field, item)
    return values


def _from_item(field: Field, item: Any) -> Any:
    if field.message_type is not None:
        if field.message_type.full_name in TIMES:
            return (item.seconds * NANOS + item.nanos) / NANOS  # rounded once
        return _builtins(item)
    if field.enum_type is not None:
        name = enum_name(field.enum_type, item)
        return name.lower() if field.enum_type.full_name == FINDING_KIND else name
    return item


def _is_map(field: Field) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)
