"""The reasons of requests that break a rule of the spec, read from the rules themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from quantd import v1
from quantd._third_party.buf.validate import validate_pb2
from quantd_server.api.error_codec import reason_of_rule

_LOWER, _UPPER = ("gt", "gte"), ("lt", "lte")


def rule_reasons() -> frozenset[str]:
    """What `Finding.reason` can be when a message of the spec breaks its rules."""
    return frozenset(reason_of_rule(rule) for rule in rule_ids())


def rule_ids() -> frozenset[str]:
    """The ids of all rules that a request can break, as protovalidate reports them."""
    return frozenset(rule for message in request_messages() for rule in _of_message(message))


def request_messages() -> Iterator[Descriptor]:
    """All messages that a request may hold."""
    pending = [
        method.input_type
        for file in {getattr(v1, name).DESCRIPTOR.file for name in v1.__all__ if _is_message(name)}
        for service in file.services_by_name.values()
        for method in service.methods
    ]
    seen = set()
    while pending:
        message = pending.pop()
        if message.full_name not in seen:
            seen.add(message.full_name)
            yield message
            pending += [field.message_type for field in message.fields if field.message_type]


def _is_message(name: str) -> bool:
    return isinstance(getattr(getattr(v1, name), "DESCRIPTOR", None), Descriptor)


def _rules(descriptor: Any, extension: Any) -> Any:
    return descriptor.GetOptions().Extensions[extension]


def _of_message(message: Descriptor) -> Iterator[str]:
    rules = _rules(message, validate_pb2.message)
    yield from (rule.id for rule in rules.cel)
    if rules.oneof:
        yield "message.oneof"
    for oneof in message.oneofs:
        if _rules(oneof, validate_pb2.oneof).required:
            yield "required"
    for field in message.fields:
        yield from _of_field(_rules(field, validate_pb2.field))


def _of_field(rules: Any) -> Iterator[str]:
    yield from (rule.id for rule in rules.cel)
    if rules.required:
        yield "required"
    kind = rules.WhichOneof("type")
    if kind is None:
        return
    typed: Message = getattr(rules, kind)
    for rule, value in typed.ListFields():
        if isinstance(value, validate_pb2.FieldRules):  # of items, keys and values
            yield from _of_field(value)
        elif rule.name in _LOWER + _UPPER:
            yield from _of_bound(kind, rule.name, typed)
        elif value is not False:
            defined = _rules(rule, validate_pb2.predefined)
            ids = [each.id for each in defined.cel] or [f"{kind}.{rule.name}"]
            if rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE:
                ids = [each for each in ids if not each.endswith("_empty")]
            yield from ids


def _of_bound(kind: str, name: str, typed: Any) -> Iterator[str]:
    """Two bounds are one rule, and one of another name where they leave out what is between."""
    lower = next((each for each in _LOWER if typed.HasField(each)), None)
    upper = next((each for each in _UPPER if typed.HasField(each)), None)
    if lower is None or upper is None:
        yield f"{kind}.{name}"
    elif name == lower:
        turned = getattr(typed, upper) < getattr(typed, lower)
        yield f"{kind}.{lower}_{upper}" + ("_exclusive" if turned else "")
