"""A client that knows nothing of the spec but what the server tells it, as grpcurl does."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc


class ReflectionClient:
    """Calls methods by name with dicts."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.pool = descriptor_pool.DescriptorPool()  # empty: nothing generated is in it
        self.stub = reflection_pb2_grpc.ServerReflectionStub(channel)

    async def ask(self, **question):
        call = self.stub.ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(**question))
        answer = await call.read()
        await call.done_writing()
        return answer

    async def services(self) -> list[str]:
        answer = await self.ask(list_services="")
        return [service.name for service in answer.list_services_response.service]

    async def call(self, service: str, method: str, request: dict) -> dict:
        answer = await self.ask(file_containing_symbol=service)
        files = {}
        for data in answer.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            files[file.name] = file
        added: set[str] = set()

        def add(name: str) -> None:
            if name in added:
                return
            added.add(name)
            for dependency in files[name].dependency:
                add(dependency)
            self.pool.Add(files[name])

        for name in files:
            add(name)
        descriptor = self.pool.FindServiceByName(service).methods_by_name[method]
        request_class = GetMessageClass(descriptor.input_type)
        response_class = GetMessageClass(descriptor.output_type)
        call = self.channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=request_class.SerializeToString,
            response_deserializer=response_class.FromString,
        )
        return MessageToDict(
            await call(ParseDict(request, request_class())), preserving_proto_field_name=True
        )


async def test_the_services_are_listed(scripted):
    assert set(await ReflectionClient(scripted.channel).services()) == {
        "quantd.v1.QuantizationService",
        "quantd.v1.JobService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


async def test_a_call_needs_nothing_but_reflection(scripted):
    client = ReflectionClient(scripted.channel)
    answer = await client.call("quantd.v1.QuantizationService", "GetCapabilities", {})
    assert {method["method"] for method in answer["methods"]} == {
        "METHOD_BITSANDBYTES_8BIT",
        "METHOD_BITSANDBYTES_4BIT",
        "METHOD_GPTQ",
        "METHOD_AWQ",
        "METHOD_GGUF",
        "METHOD_AQLM",
    }
    assert answer["server"]["api_versions"] == ["quantd.v1"]


async def test_errors_reach_such_a_client(scripted):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await ReflectionClient(scripted.channel).call(
            "quantd.v1.JobService", "GetJob", {"name": "jobs/none"}
        )
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_an_unknown_symbol_is_told(scripted):
    answer = await ReflectionClient(scripted.channel).ask(file_containing_symbol="no.Such")
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
