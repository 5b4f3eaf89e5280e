"""Generated requests for every method: whatever comes in, no answer is UNKNOWN or INTERNAL.

The methods are found through the descriptors, so that a new one is tested without a change here.
The fast run shares QUANTD_EXAMPLES requests among the methods. The slow one sends EXAMPLES_EACH
to every method of quantd, counts them, and fails if they are fewer than 10,000 in all.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests import tiny_models
from tests.api.server_process import server_process

from quantd import v1
from quantd._third_party.buf.validate import validate_pb2
from quantd_server.api.server import SERVED_FILES

EXAMPLES = int(os.environ.get("QUANTD_EXAMPLES", "300"))
EXAMPLES_EACH = 2_000
EXAMPLES_IN_ALL = 10_000
DEADLINE_SECONDS = 30.0
MAX_ANSWERS = 5
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in SERVED_FILES
    for service in file.services_by_name.values()
    for method in service.methods
}
NEVER = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    # What a server that hangs or dies would give.
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
}

INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: st.sampled_from([0, 1, -1, 4, 64, 128, 2**31 - 1, -(2**31)]),
    FieldDescriptor.CPPTYPE_INT64: st.sampled_from([0, 1, -1, 2**40, 2**63 - 1, -(2**63)]),
    FieldDescriptor.CPPTYPE_UINT32: st.sampled_from([0, 1, 4, 8, 64, 128, 10_000, 2**32 - 1]),
    FieldDescriptor.CPPTYPE_UINT64: st.sampled_from([0, 1, 2**20, 2**62, 2**63, 2**64 - 1]),
}


class Requests:
    """Strategies for messages, by descriptor; the server's folder has a checkpoint and a job."""

    def __init__(self, folder: Path, job: str) -> None:
        self.job = job
        self.sources = st.sampled_from([f"{folder}/model", f"file://{folder}/model"])
        self.outputs = st.sampled_from(
            [f"{folder}/out{number}{suffix}" for number in range(5) for suffix in ("", ".gguf")]
        )
        self.texts = st.sampled_from(
            [
                "",
                "/",
                str(folder),
                f"{folder}/model/config.json",
                f"{folder}/../../etc/passwd",
                "file:///etc/%00",
                "file://[",
                "hf:a/b",
                "jobs/ABC",
                "(((",
                "a" * 5000,
                "quantd.v1.JobService",
                "\0",
                "é世\u202e",
                "{}",
            ]
        ) | st.text(st.characters(codec="utf-8"), max_size=30)

    def encoded(self, descriptor):
        """Bytes of a request: keeping the rules, perhaps not, damaged, or just bytes."""
        valid = self.message(descriptor, wild=False).map(
            lambda message: message.SerializeToString()
        )
        wild = self.message(descriptor, wild=True).map(lambda message: message.SerializeToString())
        damage = valid.flatmap(damaged)
        # one_of would count the repetitions once.
        kinds = st.sampled_from([0, 0, 0, 0, 1, 1, 2, 3])
        return kinds.flatmap([valid, wild, damage, st.binary(max_size=60)].__getitem__)

    def message(self, descriptor, *, wild: bool, depth: int = 6):
        """A message of a type. Unless ``wild``, it keeps the rules of single fields."""

        @st.composite
        def build(draw):
            message = GetMessageClass(descriptor)()
            alternatives = {
                oneof.name: draw(st.sampled_from([field.name for field in oneof.fields]))
                for oneof in descriptor.oneofs
                if len(oneof.fields) > 1
            }
            for field in descriptor.fields:
                oneof = field.containing_oneof
                if oneof is not None and oneof.name in alternatives:
                    wanted = alternatives[oneof.name] == field.name
                else:
                    wanted = needed(field) or draw(st.integers(0, 2)) == 0
                if wild and draw(st.integers(0, 3)) == 0:
                    wanted = not wanted
                if wanted and depth > 0:
                    self._set(draw, message, field, wild, depth - 1)
            return message

        return build()

    def _set(self, draw, message, field, wild, depth):
        values = self._value(field, rules_of(field), wild, depth)
        if field.message_type and field.message_type.GetOptions().map_entry:
            entry = field.message_type.fields_by_name
            of_map = rules_of(field).map
            keys = self._value(entry["key"], of_map.keys, wild, depth)
            items = self._value(entry["value"], getattr(of_map, "values"), wild, depth)  # noqa: B009
            for key, value in draw(st.dictionaries(keys, items, max_size=3)).items():
                getattr(message, field.name)[key] = value
        elif field.is_repeated:
            rules = rules_of(field).repeated
            values = self._value(field, rules.items, wild, depth)
            unique = None if wild or field.message_type else str
            least = 0 if wild else rules.min_items
            drawn = draw(st.lists(values, min_size=least, max_size=3, unique_by=unique))
            getattr(message, field.name).extend(drawn)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(draw(values))
        else:
            setattr(message, field.name, draw(values))

    def _value(self, field, rules, wild, depth):
        kind = field.cpp_type
        if field.message_type is not None:
            if field.message_type.GetOptions().map_entry:
                return st.nothing()
            return self.message(field.message_type, wild=wild, depth=depth)
        if field.enum_type is not None:
            known = [number for number in field.enum_type.values_by_number if number or wild]
            return st.sampled_from([*known, 99, -1] if wild else known)
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans() if wild else st.just(False)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=20)
        if kind == FieldDescriptor.CPPTYPE_STRING:
            return self.texts if wild else self._text(field, rules.string)
        if kind in INTEGERS:
            return INTEGERS[kind] if wild else number_within(rules, INTEGERS[kind])
        return st.floats(width=32) if wild else number_within(rules, st.floats(0, 1))

    def _text(self, field, rules):
        if field.name == "name":
            return st.just(self.job) | st.from_regex(rules.pattern, fullmatch=True)
        if field.name.endswith("_uri"):
            return self.outputs if field.name == "output_uri" else self.sources
        if rules.uuid:
            return st.uuids().map(str)
        if rules.pattern:
            return st.from_regex(rules.pattern, fullmatch=True)
        if field.name == "page_token":
            return st.just("")
        return st.sampled_from(["a", "lm_head", "blk.0.ffn", "{}", "quantd.v1.JobService"])


def rules_of(field):
    """The rules of a field in the spec."""
    return field.GetOptions().Extensions[validate_pb2.field]


def needed(field) -> bool:
    """Whether a request without the field breaks a rule."""
    rules = rules_of(field)
    filled = rules.string.min_len or rules.repeated.min_items or list(rules.enum.not_in)
    return bool(rules.required or filled or field.name in ("name", "output_uri"))


def number_within(rules, otherwise):
    """Numbers that keep the rules; ``otherwise`` where there are none."""
    name = rules.WhichOneof("type")
    if name not in ("int32", "uint32", "uint64", "double"):
        return otherwise
    bounds = getattr(rules, name)
    if allowed := list(getattr(bounds, "in")):
        return st.sampled_from(allowed)
    low = bounds.gte if bounds.HasField("gte") else bounds.gt
    high = bounds.lte if bounds.HasField("lte") else bounds.lt
    if name == "double":
        return st.floats(low, high or 100.0, exclude_min=bounds.HasField("gt"), exclude_max=True)
    return st.integers(low, high or low + 10_000)


@st.composite
def damaged(draw, data: bytes) -> bytes:
    """``data`` with a few bytes replaced, removed or added."""
    result = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(result)))
        kind = draw(st.sampled_from(["replace", "cut", "insert"]))
        if kind == "insert":
            result[place:place] = draw(st.binary(min_size=1, max_size=4))
        elif kind == "cut":
            del result[place:]
        elif place < len(result):
            result[place] = draw(st.integers(0, 255))
    return bytes(result)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    tiny_models.write(folder / "model")
    options = ("--heartbeat-interval", "0.1", "--max-queued-jobs", "4", "--max-events-per-job", "9")
    with server_process(folder, *options) as process:
        with grpc.insecure_channel(process.address) as channel:
            spec = v1.QuantizationSpec(
                source_uri=f"{folder}/model",
                output_uri=f"{folder}/first.gguf",
                method=v1.MethodConfig(gguf=v1.GgufConfig()),
            )
            stream = v1.QuantizationServiceStub(channel).Quantize(v1.QuantizeRequest(spec=spec))
            job = [answer.event for answer in stream][-1].snapshot.name
        yield Requests(folder, job), process
        assert process.process.poll() is None, "the server died"
        assert not process.events("incident")
        assert process.stop() == 0


async def answer(channel: grpc.aio.Channel, path: str, data: bytes) -> grpc.StatusCode:
    """The code of a call; of a stream only the first answers are read."""
    method = METHODS[path]
    if not METHODS[path].client_streaming and not method.server_streaming:
        call = channel.unary_unary(path)(data, timeout=DEADLINE_SECONDS)
        try:
            await call
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK
    if method.client_streaming:
        call = channel.stream_stream(path)(_once(data), timeout=DEADLINE_SECONDS)
    else:
        call = channel.unary_stream(path)(data, timeout=DEADLINE_SECONDS)
    try:
        count = 0
        async for _ in call:
            count += 1
            if count == MAX_ANSWERS or path.endswith("Health/Watch"):
                call.cancel()
                return grpc.StatusCode.OK
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def _once(data: bytes):
    yield data


def send_generated(server, path: str, examples: int) -> int:
    """Calls one method with at most ``examples`` generated requests; how many were answered.

    They are fewer where a message cannot differ so often (a request without fields).
    """
    requests, process = server
    answered = 0
    with asyncio.Runner() as runner:

        async def connect() -> grpc.aio.Channel:
            return grpc.aio.insecure_channel(process.address)

        channel = runner.run(connect())

        @settings(
            max_examples=max(1, examples),
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(requests.encoded(METHODS[path].input_type))
        def check(data: bytes) -> None:
            nonlocal answered
            assert runner.run(answer(channel, path, data)) not in NEVER
            answered += 1

        try:
            check()
        finally:
            runner.run(channel.close())
    return answered


@pytest.mark.parametrize("path", METHODS)
def test_no_request_is_unknown_or_internal(server, path):
    assert send_generated(server, path, EXAMPLES // len(METHODS)) > 0


@pytest.mark.slow
def test_no_request_of_ten_thousand_is_unknown_or_internal(server):
    answered = {
        path: send_generated(server, path, EXAMPLES_EACH)
        for path in METHODS
        if path.startswith("/quantd.")
    }
    print(answered, sum(answered.values()))
    assert all(answered.values())
    assert sum(answered.values()) >= EXAMPLES_IN_ALL
