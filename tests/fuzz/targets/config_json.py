"""A `quantization_config` as ParseConfig reads it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping

import msgspec
from tests.fuzz.bounds import check_refusal
from tests.fuzz.json_mutation import mutate_text
from tests.fuzz.recorded_requests import recorded_requests
from tests.fuzz.target import Target

from quantd import v1
from quantd_server.api.translation import to_message
from quantd_server.errors import QuantdError
from quantd_server.planning.config_parsing.parsed import ParsedConfig
from quantd_server.planning.config_parsing.parsing import parse_config


def run(data: bytes) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return  # no request can hold it
    try:
        parsed = parse_config(text)
    except QuantdError as error:
        check_refusal(error)
        return
    read = msgspec.json.decode(msgspec.json.encode(parsed), type=ParsedConfig)
    to_message(read, v1.ParseConfigResponse).SerializeToString()
    if parsed.canonical_json:
        # What is canonical is accepted, and stays as it is.
        assert parse_config(parsed.canonical_json).canonical_json == parsed.canonical_json


def seeds() -> Mapping[str, bytes]:
    texts = {
        request["configJson"]
        for method, request in recorded_requests()
        if method.endswith("/ParseConfig") and len(request.get("configJson", "")) in range(1, 4000)
    }
    return {f"recorded-{number:03}": text.encode() for number, text in enumerate(sorted(texts))}


def _words() -> tuple[str, ...]:
    found: set[str] = {"quantization_config"}
    for text in seeds().values():
        try:
            todo = [json.loads(text)]
        except ValueError:
            continue
        while todo:
            node = todo.pop()
            if isinstance(node, dict):
                found |= node.keys()
                todo.extend(node.values())
            elif isinstance(node, list):
                todo.extend(node)
            elif isinstance(node, str):
                found.add(node)
    return tuple(sorted(word for word in found if len(word) < 60))


WORDS = _words()


def mutate(
    data: bytes, max_size: int, rng: random.Random, mutate_bytes: Callable[[bytes, int], bytes]
) -> bytes:
    return mutate_text(data, max_size, rng, mutate_bytes, WORDS)


TARGET = Target(run=run, seeds=seeds, mutate=mutate)
