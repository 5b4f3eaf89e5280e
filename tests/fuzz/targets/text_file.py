"""The reader of files of texts: .txt and .jsonl, whole and in windows."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping

from tests.fuzz.bounds import check_refusal
from tests.fuzz.json_mutation import mutate_text
from tests.fuzz.target import Target, folder

from quantd_server.calibration.config import CalibrationFile
from quantd_server.calibration.text_file import TextFile
from quantd_server.calibration.texts import file_texts
from quantd_server.errors import QuantdError

FIELD = "spec.calibration.file"
LIMITS = (64, 100, 1000, 1 << 20)
JSON, SPREAD, CHAT = 1, 2, 4
LIMIT_SHIFT = 3


def run(data: bytes) -> None:
    """The first byte has the options, the others are the file."""
    if not data:
        return
    options, content = data[0], data[1:]
    limit = LIMITS[options >> LIMIT_SHIFT & 3]
    path = folder() / ("fuzzed.jsonl" if options & JSON else "fuzzed.txt")
    path.write_bytes(content)
    config = CalibrationFile(uri=str(path))
    read = 0
    try:
        with TextFile(str(path), FIELD, limit=limit, spread=bool(options & SPREAD)) as file:
            for text, place in file_texts(file, config, chat=bool(options & CHAT), field=FIELD):
                # A record is never empty; the text of a JSON object may be, and has no tokens.
                assert place and (text or file.is_json)
                read += len(text) if isinstance(text, str) else 0
    except QuantdError as error:
        check_refusal(error)
    longest = max(map(len, content.split(b"\n"))) + 1
    assert read <= 2 * limit + longest, f"{read} characters of a limit of {limit} bytes"


def _options(*flags: int, limit: int = 3) -> bytes:
    return bytes([sum(flags) | limit << LIMIT_SHIFT])


def seeds() -> Mapping[str, bytes]:
    paragraphs = "One line\nand another.\r\n\r\n\n Ünïcode 世界\n".encode() * 12
    lines = b"".join(
        json.dumps(line).encode() + b"\n"
        for line in (
            {"text": "a"},
            {"text": "\ud83d\ude00", "id": 1},
            {"messages": [{"role": "user", "content": "hello"}]},
        )
    )
    found = {"empty": b"", "json_lines": _options(JSON) + lines}
    for limit in range(len(LIMITS)):
        found[f"text_{limit}"] = _options(limit=limit) + paragraphs
        found[f"text_spread_{limit}"] = _options(SPREAD, limit=limit) + paragraphs
        found[f"json_spread_{limit}"] = _options(JSON, SPREAD, limit=limit) + lines * 4
    return found | {
        "byte_order_mark": _options() + b"\xef\xbb\xbfa\n\nb",
        "not_utf8": _options() + b"a\xff\n",
        "one_long_line": _options(SPREAD, limit=0) + b"\xe4\xb8\x96" * 100,
        "chat": _options(JSON, CHAT) + lines.split(b"\n")[2],
        "surrogate": _options(JSON) + b'{"text": "\\ud800"}\n',
        "deep": _options(JSON) + b"[" * 3000,
    }


def mutate(
    data: bytes, max_size: int, rng: random.Random, mutate_bytes: Callable[[bytes, int], bytes]
) -> bytes:
    """One line of JSON changes, or anything."""
    lines = data[1:].split(b"\n")
    if data and data[0] & JSON and rng.random() < 0.7:
        at = rng.randrange(len(lines))
        lines[at] = mutate_text(
            lines[at], 2000, rng, mutate_bytes, ("text", "messages", "role", "user", "content")
        )
        return (data[:1] + b"\n".join(lines))[:max_size]
    if data and len(data) < max_size // 2 and rng.random() < 0.1:
        return data + data[1:]
    return mutate_bytes(data, max_size)


TARGET = Target(run=run, seeds=seeds, mutate=mutate)
