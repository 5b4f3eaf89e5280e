"""What grpcurl does, in Python: a client that knows a server by reflection alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

TIMEOUT = 60.0


class ReflectionClient:
    """Lists, describes and calls; messages are dictionaries as JSON has them."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._database = ProtoReflectionDescriptorDatabase(channel)
        self._pool = DescriptorPool(self._database)

    def services(self) -> list[str]:
        return sorted(self._database.get_services())

    def describe(self, name: str) -> Any:
        """The descriptor of a service or a message; raises ``KeyError`` when there is none."""
        try:
            return self._pool.FindServiceByName(name)
        except KeyError:
            return self._pool.FindMessageTypeByName(name)

    def call(self, path: str, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Calls "package.Service/Method"; raises what json_format does for a wrong request."""
        service, _, name = path.partition("/")
        method: MethodDescriptor = self._pool.FindServiceByName(service).methods_by_name[name]
        message = json_format.ParseDict(request, GetMessageClass(method.input_type)())
        stub = self._channel.unary_stream(
            f"/{path}",
            request_serializer=type(message).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        return [
            json_format.MessageToDict(
                response, preserving_proto_field_name=True, descriptor_pool=self._pool
            )
            for response in stub(message, timeout=TIMEOUT)
        ]


@dataclass(frozen=True)
class Grpcurl:
    """A grpcurl command."""

    data: str
    address: str
    arguments: tuple[str, ...]

    @classmethod
    def of(cls, words: list[str]) -> Grpcurl:
        """Reads `grpcurl -plaintext [-d JSON] ADDRESS ARGUMENT...`; nothing else is allowed."""
        program, plaintext, *rest = words
        assert (program, plaintext) == ("grpcurl", "-plaintext"), words
        data = "{}"
        if rest[0] == "-d":
            data, rest = rest[1], rest[2:]
        address, *arguments = rest
        assert arguments, words
        return cls(data, address, tuple(arguments))
