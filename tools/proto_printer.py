"""Prints a protobuf `FileDescriptorProto` as .proto source text.

Some packages carry the compiled descriptor of their spec but not its source. The text printed here
compiles to the same descriptor again; comments, which a descriptor does not hold, are lost. Covers
syntax proto2 and proto3 with custom options; files of an edition and proto2 groups are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from google.protobuf import (
    descriptor,
    descriptor_pool,
    message_factory,
    text_encoding,
    text_format,
)
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)
from google.protobuf.message import Message

_ReservedRange = DescriptorProto.ReservedRange | EnumDescriptorProto.EnumReservedRange
_MAX_FIELD_NUMBER = 536870911
_MAX_ENUM_NUMBER = 2147483647
_LABELS = {
    FieldDescriptorProto.LABEL_OPTIONAL: "optional ",
    FieldDescriptorProto.LABEL_REQUIRED: "required ",
    FieldDescriptorProto.LABEL_REPEATED: "repeated ",
}


def print_file(
    file: FileDescriptorProto,
    dependencies: Iterable[FileDescriptorProto] = (),
) -> str:
    """Returns the .proto source of `file`.

    Args:
        file: The descriptor to print.
        dependencies: Every file that `file` imports, directly or not, in import order.

    Raises:
        ValueError: The file uses an edition or a group, which this printer does not know.
    """
    if file.syntax not in ("", "proto2", "proto3"):
        raise ValueError(
            f"{file.name}: syntax is {file.syntax!r}, only proto2 and proto3 can be printed"
        )
    return "\n".join(_FilePrinter(file, dependencies).lines()) + "\n"


class _FilePrinter:
    """Prints one file; every method yields lines of source."""

    def __init__(
        self,
        file: FileDescriptorProto,
        dependencies: Iterable[FileDescriptorProto],
    ) -> None:
        self._file = file
        self._is_proto3 = file.syntax == "proto3"
        # A private pool: custom options can be decoded only by message classes that know the
        # extensions declared in this very file, which must not be registered for the whole process.
        self._pool = descriptor_pool.DescriptorPool()
        names = set()
        for dependency in (*dependencies, file):
            if dependency.name not in names:
                names.add(dependency.name)
                self._pool.Add(dependency)

    def lines(self) -> Iterator[str]:
        file = self._file
        yield f'syntax = "{file.syntax or "proto2"}";'
        if file.package:
            yield ""
            yield f"package {file.package};"
        if file.dependency:
            yield ""
        for index, name in enumerate(file.dependency):
            modifier = "public " if index in file.public_dependency else ""
            modifier = "weak " if index in file.weak_dependency else modifier
            yield f"import {modifier}{_quote(name)};"
        if options := self._options(file.options):
            yield ""
            yield from _statements(options)
        yield from self._extensions(file.extension)
        for enum in file.enum_type:
            yield ""
            yield from self._enum(enum)
        for message in file.message_type:
            yield ""
            yield from self._message(message, f".{file.package}" if file.package else "")
        for service in file.service:
            yield ""
            yield from self._service(service)

    def _message(self, message: DescriptorProto, scope: str) -> Iterator[str]:
        yield f"message {message.name} {{"
        yield from _indented(self._message_body(message, f"{scope}.{message.name}"))
        yield "}"

    def _message_body(self, message: DescriptorProto, name: str) -> Iterator[str]:
        yield from _statements(self._options(message.options))
        yield from _reserved(message.reserved_range, message.reserved_name, exclusive_end=True)
        for extension_range in message.extension_range:
            span = _span(extension_range.start, extension_range.end - 1, _MAX_FIELD_NUMBER)
            yield from _declaration(f"extensions {span}", self._options(extension_range.options))
        for enum in message.enum_type:
            yield from self._enum(enum)
        map_entries = {
            f"{name}.{nested.name}": nested
            for nested in message.nested_type
            if nested.options.map_entry
        }
        # The entry type of a map field counts among the nested types, where the field stands.
        nested_types = iter(message.nested_type)
        yield from self._messages_before_map_entry(nested_types, name)
        yield from self._extensions(message.extension)
        printed_oneofs = set()
        for field in message.field:
            if not field.HasField("oneof_index") or field.proto3_optional:
                yield from self._field(field, map_entries)
                if field.type_name in map_entries:
                    yield from self._messages_before_map_entry(nested_types, name)
            elif field.oneof_index not in printed_oneofs:
                printed_oneofs.add(field.oneof_index)
                oneof = message.oneof_decl[field.oneof_index]
                members = [
                    member
                    for member in message.field
                    if member.HasField("oneof_index") and member.oneof_index == field.oneof_index
                ]
                yield f"oneof {oneof.name} {{"
                yield from _indented(_statements(self._options(oneof.options)))
                for member in members:
                    yield from _indented(self._field(member, in_oneof=True))
                yield "}"

    def _messages_before_map_entry(
        self, nested_types: Iterator[DescriptorProto], scope: str
    ) -> Iterator[str]:
        """Prints nested messages up to the next map entry, which it consumes too."""
        for nested in nested_types:
            if nested.options.map_entry:
                return
            yield from self._message(nested, scope)

    def _field(
        self,
        field: FieldDescriptorProto,
        map_entries: Mapping[str, DescriptorProto] = MappingProxyType({}),
        *,
        in_oneof: bool = False,
    ) -> Iterator[str]:
        if field.type_name in map_entries:
            key, value = map_entries[field.type_name].field
            declared = f"map<{_type_name(key)}, {_type_name(value)}>"
        else:
            implicit = (
                self._is_proto3
                and field.label == FieldDescriptorProto.LABEL_OPTIONAL
                and not field.proto3_optional
            )
            declared = ("" if in_oneof or implicit else _LABELS[field.label]) + _type_name(field)
        options = self._options(field.options)
        if field.HasField("json_name") and field.json_name != _default_json_name(field.name):
            options.insert(0, f"json_name = {_quote(field.json_name)}")
        if field.HasField("default_value"):
            options.insert(0, f"default = {_default_value(field)}")
        yield from _declaration(f"{declared} {field.name} = {field.number}", options)

    def _extensions(self, extensions: Iterable[FieldDescriptorProto]) -> Iterator[str]:
        for extension in extensions:
            yield ""
            yield f"extend {extension.extendee} {{"
            yield from _indented(self._field(extension))
            yield "}"

    def _enum(self, enum: EnumDescriptorProto) -> Iterator[str]:
        yield f"enum {enum.name} {{"
        yield from _indented(_statements(self._options(enum.options)))
        yield from _indented(
            _reserved(enum.reserved_range, enum.reserved_name, exclusive_end=False)
        )
        for value in enum.value:
            yield from _indented(
                _declaration(f"{value.name} = {value.number}", self._options(value.options))
            )
        yield "}"

    def _service(self, service: ServiceDescriptorProto) -> Iterator[str]:
        yield f"service {service.name} {{"
        yield from _indented(_statements(self._options(service.options)))
        for method in service.method:
            request = ("stream " if method.client_streaming else "") + method.input_type
            response = ("stream " if method.server_streaming else "") + method.output_type
            declared = f"rpc {method.name}({request}) returns ({response})"
            if method.HasField("options"):
                yield f"  {declared} {{"
                yield from _indented(_indented(_statements(self._options(method.options))))
                yield "  }"
            else:
                yield f"  {declared};"
        yield "}"

    def _options(self, options: Message) -> list[str]:
        """`name = value` of every option that is set, once for each value of a repeated one."""
        serialized = options.SerializeToString()
        if not serialized:
            return []
        try:
            known = self._pool.FindMessageTypeByName(options.DESCRIPTOR.full_name)
        except KeyError:  # descriptor.proto is not imported, so there can be no custom option
            resolved = options
        else:
            resolved = message_factory.GetMessageClass(known).FromString(serialized)
        printed = []
        for field, value in resolved.ListFields():
            name = f"(.{field.full_name})" if field.is_extension else field.name
            values = value if field.is_repeated else [value]
            printed += [f"{name} = {_option_value(field, each)}" for each in values]
        return printed


def _option_value(field: descriptor.FieldDescriptor, value: Any) -> str:
    if isinstance(value, Message):
        body = text_format.MessageToString(value, as_utf8=True)
        return "\n".join(["{", *_indented(body.splitlines()), "}"])
    if field.enum_type is not None:
        return str(field.enum_type.values_by_number[value].name)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, bytes):
        return f'"{text_encoding.CEscape(value, as_utf8=False)}"'
    return repr(value)


def _type_name(field: FieldDescriptorProto) -> str:
    if field.type == FieldDescriptorProto.TYPE_GROUP:
        raise ValueError(f"field {field.name} is a group, which cannot be printed")
    return (
        field.type_name or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    )


def _default_value(field: FieldDescriptorProto) -> str:
    if field.type == FieldDescriptorProto.TYPE_STRING:
        return _quote(field.default_value)
    if field.type == FieldDescriptorProto.TYPE_BYTES:  # already escaped in the descriptor
        return f'"{field.default_value}"'
    return field.default_value


def _default_json_name(name: str) -> str:
    """Drops every underscore and makes the letter after it upper case, as protoc does."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def _reserved(
    ranges: Iterable[_ReservedRange],
    names: Sequence[str],
    *,
    exclusive_end: bool,
) -> Iterator[str]:
    maximum = _MAX_FIELD_NUMBER if exclusive_end else _MAX_ENUM_NUMBER
    spans = [_span(each.start, each.end - exclusive_end, maximum) for each in ranges]
    if spans:
        yield f"reserved {', '.join(spans)};"
    if names:
        yield f"reserved {', '.join(map(_quote, names))};"


def _span(first: int, last: int, maximum: int) -> str:
    """A range of numbers, both ends included."""
    if first == last:
        return str(first)
    return f"{first} to {'max' if last == maximum else last}"


def _declaration(declared: str, options: Sequence[str]) -> Iterator[str]:
    if not options:
        yield f"{declared};"
    elif len(options) == 1 and "\n" not in options[0]:
        yield f"{declared} [{options[0]}];"
    else:
        yield f"{declared} ["
        for index, option in enumerate(options):
            comma = "," if index < len(options) - 1 else ""
            yield from _indented(f"{option}{comma}".splitlines())
        yield "];"


def _statements(options: Iterable[str]) -> Iterator[str]:
    for option in options:
        yield from f"option {option};".splitlines()


def _indented(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield f"  {line}" if line else ""


def _quote(text: str) -> str:
    return f'"{text_encoding.CEscape(text.encode(), as_utf8=True)}"'
