"""What every request has to pass before a servicer sees it.

It decodes, it holds nothing that this version does not know, and it keeps the rules of the spec.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import protovalidate
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

from quantd_server.api.error_codec import MAX_VIOLATIONS, StatusError, reason_of_rule, status_of
from quantd_server.errors import Finding, QuantdError, quoted

OWN_PACKAGE = "quantd."
_ROUTINE_TYPES = str | int | float

validator = protovalidate.Validator()


def decode(data: bytes, message_class: type[Message]) -> Message:
    """The request in ``data``, checked.

    Raises QuantdError REQUEST_NOT_DECODABLE, or StatusError with all violations found.
    """
    try:
        message = message_class.FromString(data)
    except DecodeError:
        raise QuantdError(
            reason="REQUEST_NOT_DECODABLE",
            message=f"the request is no valid {message_class.DESCRIPTOR.full_name}",
            remedy="send a message of that type with UTF-8 strings; "
            "generate the client from the spec of the server",
        ) from None
    if message_class.DESCRIPTOR.full_name.startswith(OWN_PACKAGE):
        _check_known(message, data)
        _check_rules(message)
    return message


def compile_rules(requests: Iterable[Descriptor]) -> None:
    """Compile the rules of these requests, so that the first call need not wait for it."""
    for descriptor in requests:
        message = GetMessageClass(descriptor)()
        _set_all_messages(message, depth=4)
        validator.collect_violations(message)


def _set_all_messages(message: Message, depth: int) -> None:
    for field in message.DESCRIPTOR.fields:
        if field.message_type is None or field.message_type.GetOptions().map_entry or depth == 0:
            continue
        value = getattr(message, field.name)
        if field.is_repeated:
            _set_all_messages(value.add(), depth - 1)
        elif field.containing_oneof is None:
            value.SetInParent()
            _set_all_messages(value, depth - 1)
        else:
            # Only one member of a oneof stays set: compile the others on their own.
            alone = type(value)()
            _set_all_messages(alone, depth - 1)
            validator.collect_violations(alone)


# -- unknown fields ----------------------------------------------------------------------------


def _check_known(message: Message, data: bytes) -> None:
    """Refuse fields of a newer spec: an option must never be ignored in silence."""
    size = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() == size:
        return
    paths = list(_unknown_paths(type(message).FromString(data), ""))
    findings = [
        Finding(
            field=path,
            reason="UNKNOWN_FIELDS",
            message=f"this version of the server does not know {path}",
            remedy="leave it out, or use a newer server",
        )
        for path in paths[:MAX_VIOLATIONS]
    ]
    raise StatusError(status_of(findings))


def _unknown_paths(message: Message, prefix: str) -> Iterator[str]:
    """Paths such as "spec.method.field 99", one for each message that holds unknown fields."""
    unknown = UnknownFieldSet(message)
    if len(unknown):
        yield f"{prefix}field {unknown[0].field_number}"
    for field, value in message.ListFields():
        for place, item in _messages_in(field, value):
            yield from _unknown_paths(item, f"{prefix}{place}.")


def _messages_in(field: FieldDescriptor, value: object) -> Iterator[tuple[str, Message]]:
    if isinstance(value, Message):
        yield field.name, value
    elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
        for index, item in enumerate(value):  # type: ignore[var-annotated,arg-type]
            yield f"{field.name}[{index}]", item


# -- rules -------------------------------------------------------------------------------------


def _check_rules(message: Message) -> None:
    try:
        violations = validator.collect_violations(message)
    except protovalidate.EvaluationError as error:
        # A rule that stumbles over a value (a division by zero) is about that value.
        raise QuantdError(
            reason="RULE_NOT_EVALUABLE",
            message=f"a rule of {message.DESCRIPTOR.full_name} cannot be evaluated for this "
            f"request: {error}",
            remedy="correct the values that the rule names",
        ) from None
    if violations:
        raise StatusError(status_of([_finding(violation) for violation in violations]))


def _finding(violation: protovalidate.Violation) -> Finding:
    path = _path(violation)
    message = f"{path}: {violation.proto.message}" if path else violation.proto.message
    value = violation.field_value
    if isinstance(value, _ROUTINE_TYPES) and violation.proto.rule_id != "required":
        message += f"; got {quoted(value) if isinstance(value, str) else value}"
    return Finding(
        field=path, reason=reason_of_rule(violation.proto.rule_id), message=message, remedy=""
    )


def _path(violation: protovalidate.Violation) -> str:
    """Dotted path of the field, as "spec.serve_targets[0].engine" or `labels["a"]`."""
    path = ""
    field = violation.proto.field
    for element in field.elements if field else ():
        path += f".{element.field_name}" if path else element.field_name
        subscript = element.subscript
        if subscript is not None:
            key = subscript.value
            path += f"[{quoted(key) if isinstance(key, str) else key}]"
    return path
