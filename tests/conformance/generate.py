"""Writes the vectors: `python -m tests.conformance.generate [--check]`."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any

from google.protobuf import json_format
from tests.conformance import definitions
from tests.conformance.servers import CALLERS, KINDS, NEEDS
from tests.conformance.vector import (
    FOLDER,
    METHODS,
    Vector,
    answer_of,
    calls,
    check_names,
    request_of,
)

DEFAULTS = {each.name: each.default for each in fields(Vector)}


def areas() -> Iterator[tuple[str, list[Vector]]]:
    """The vectors by area, which is the name of their module and of their file."""
    for module in pkgutil.iter_modules(definitions.__path__):
        found = importlib.import_module(f"{definitions.__name__}.{module.name}")
        if hasattr(found, "VECTORS"):
            yield module.name, found.VECTORS


def problems(vector: Vector) -> Iterator[str]:
    """What a vector could not mean: it would be skipped, or hold for any answer."""
    if vector.server not in KINDS:
        yield f"there is no kind of server {vector.server}"
    if vector.needs not in NEEDS:
        yield f"nothing is known of the need {vector.needs}"
    if vector.caller and vector.caller not in {*CALLERS, "stranger"}:
        yield f"there is no caller {vector.caller}"
    for step in calls(vector):
        if step["call"] not in METHODS:
            yield f"there is no RPC {step['call']}"
            continue
        try:
            json_format.ParseDict(_with_values(step.get("request", {})), request_of(step["call"])())
            check_names(step.get("expect", {}).get("reply", {}), answer_of(step["call"]).DESCRIPTOR)
        except (json_format.ParseError, ValueError) as error:
            yield str(error)


def _with_values(request: Any) -> Any:
    """A request whose kept numbers are some number."""
    text = json.dumps(request)
    return json.loads(text.replace("${last}", "1"))


def written(members: Any) -> str:
    """JSON for people: a member a line, but lists of numbers in one."""
    text = json.dumps(members, indent=1, ensure_ascii=False)
    numbers = re.compile(r"\[\s+(-?\d[-\d,\s]*?)\s+\]")
    return numbers.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def texts() -> dict[str, str]:
    """What the files have to hold, by name.

    Raises:
        ValueError: A vector means nothing, or two have the same name.
    """
    found: dict[str, str] = {}
    names: set[str] = set()
    for area, vectors in areas():
        members = []
        for vector in vectors:
            for problem in problems(vector):
                raise ValueError(f"{vector.name}: {problem}")
            if vector.name in names:
                raise ValueError(f"{vector.name}: there are two of this name")
            names.add(vector.name)
            members.append({k: v for k, v in asdict(vector).items() if v != DEFAULTS[k]})
        found[f"{area}.json"] = written(members)
    return found


def main() -> int:
    """Writes the files, or says what is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.generate")
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    check = parser.parse_args().check
    wanted = texts()
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    stale = sorted(name for name in wanted.keys() | there if wanted.get(name) != there.get(name))
    if check:
        for name in stale:
            print(f"vectors/{name} is not what its source says: run make generate", file=sys.stderr)
        return int(bool(stale))
    for name in stale:
        if name in wanted:
            (FOLDER / name).write_text(wanted[name], encoding="utf-8")
        else:
            (FOLDER / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
