"""One target under atheris, in this process: ``python -m tests.fuzz.fuzzing TARGET [OPTION…]``.

The options are libFuzzer's. The process ends with the run; ``tests.fuzz`` starts it.
"""

from __future__ import annotations

import importlib
import random
import shlex
import sys

import atheris

SERVER = "quantd_server"


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    _, name, *options = sys.argv
    # What is imported from here on, late too, tells the fuzzer where it came by.
    with atheris.instrument_imports(include=[SERVER]):
        _fuzz(name, options)


def _fuzz(name: str, options: list[str]) -> None:
    target = importlib.import_module(f"tests.fuzz.targets.{name}").TARGET
    bounded = importlib.import_module("tests.fuzz.bounds").bounded

    def run(data: bytes) -> None:
        with bounded():
            target.run(data)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        changed = target.mutate(data, max_size, random.Random(seed), atheris.Mutate)
        return changed[:max_size]

    # libFuzzer starts itself again by the shell, to merge, and takes the first word for a program.
    again = f"{shlex.quote(sys.executable)} -m tests.fuzz.fuzzing {name}"
    atheris.Setup([again, f"-max_len={target.max_bytes}", *options], run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
