"""What the targets of the two services share: requests, from bytes to the end of the call.

The first byte of an input chooses the method, the others are the request. ``PLACE`` in it stands
for the folder of the process, which has as many bytes, so that no length in the request changes.
"""

from __future__ import annotations

import functools
import json
import random
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from tests.conformance.fixtures import FIXTURES
from tests.fuzz.protobuf_mutation import mutate_message
from tests.fuzz.recorded_requests import recorded_requests
from tests.fuzz.served import JOB_NAMES, Served
from tests.fuzz.target import Target, folder

from quantd_server.api.paging import token_of

PLACE = b"/tmp/quantd-~~~~~~~~"
CHECKPOINTS = (
    "tiny", "sharded", "gpt2", "untied", "mixture", "quantized-gptq", "config-odd", "mamba",
    "no-tokenizer", "tokenizer-malformed", "plain.gguf", "split.gguf", "some.imatrix", "texts.txt",
    "broken.jsonl", "fieldless.jsonl", "notes.txt",
)  # fmt: skip
"""Fixtures of the conformance vectors that requests find below the folder."""
NAMES = {
    "${sources}": PLACE.decode(),
    "${outputs}": PLACE.decode() + "/outputs",
    "${job}": JOB_NAMES[0],
    "${waiting}": JOB_NAMES[0],
    "${running}": JOB_NAMES[0],
    "${last}": "1",
    "${token}": "position:1",
}
POSITION = "position:"
"""Followed by a number it stands for a token, which depends on the folder and on the request."""
POSITIONS = tuple(f"{POSITION}{place}" for place in (1, 2, 3, 100, 2**40, 2**63))
MODULES = ("lm_head", "model.layers.0.self_attn.q_proj", "re:.*", r"\d+", "blk.0.ffn_up.weight")


@functools.cache
def _served() -> Served:
    root = folder()
    (root / "outputs").mkdir()
    for name in CHECKPOINTS:
        FIXTURES[name](root / name)
    return Served(str(root))


def target_of(service: Any) -> Target:
    """The target of a service, by its descriptor."""
    methods = sorted(service.methods, key=lambda method: method.name)
    classes = [GetMessageClass(method.input_type) for method in methods]

    def run(data: bytes) -> None:
        if data:
            method = methods[data[0] % len(methods)]
            request = data[1:].replace(PLACE, str(folder()).encode())
            if POSITION.encode() in request:
                request = _with_token(request, classes[data[0] % len(methods)])
            _served().call(f"/{service.full_name}/{method.name}", request)

    @functools.cache
    def seeds() -> Mapping[str, bytes]:
        found: dict[str, bytes] = {}
        for place, method in enumerate(methods):
            found[f"{method.name}-empty"] = bytes([place])
            if classes[place].DESCRIPTOR.fields_by_name.get("name"):
                for number, name in enumerate(JOB_NAMES):
                    request = classes[place](name=name).SerializeToString()
                    found[f"{method.name}-job-{number}"] = bytes([place]) + request
        for path, request in recorded_requests():
            owner, _, name = path.rpartition("/")
            places = [place for place, method in enumerate(methods) if method.name == name]
            text = json.dumps(request)
            for written, meant in NAMES.items():
                text = text.replace(written, meant)
            used = re.findall(rf"{re.escape(PLACE.decode())}/([\w.-]+)", text)
            if owner != service.full_name or not set(used) <= {*CHECKPOINTS, "outputs"}:
                continue
            if len(text) > 2000 or not places:
                continue
            try:
                message = json_format.ParseDict(json.loads(text), classes[places[0]]())
            except json_format.ParseError:
                continue  # a vector that is about JSON
            content = bytes(places) + message.SerializeToString()
            if content not in found.values():
                found[f"{name}-{len(found):03}"] = content
        return found

    @functools.cache
    def words() -> tuple[str, ...]:
        sources = [f"{PLACE.decode()}/{name}" for name in CHECKPOINTS]
        outputs = [f"{PLACE.decode()}/outputs/{name}" for name in ("a", "b.gguf")]
        uris = [f"file://{sources[0]}", "file:///etc/%00", "hf:a/b", PLACE.decode()]
        return (*sources, *outputs, *uris, *JOB_NAMES, *MODULES, *POSITIONS)

    def mutate(
        data: bytes, max_size: int, rng: random.Random, mutate_bytes: Callable[[bytes, int], bytes]
    ) -> bytes:
        if not data or rng.random() < 0.03:
            return bytes([rng.randrange(len(methods))]) + data[1:]
        message_class = classes[data[0] % len(methods)]
        request = mutate_message(data[1:], message_class, max_size - 1, rng, mutate_bytes, words())
        return data[:1] + request

    return Target(run=run, seeds=seeds, mutate=mutate)


def _with_token(request: bytes, message_class: Any) -> bytes:
    """The request with the token that continues it where its own token says."""
    try:
        message = message_class.FromString(request)
        position = int(message.page_token.removeprefix(POSITION))
        message.page_token = token_of(message, position)
    except (DecodeError, AttributeError, ValueError, struct.error):
        return request
    return message.SerializeToString()
