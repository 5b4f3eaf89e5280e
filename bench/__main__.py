"""Measurements as tables: `python -m bench [TABLE ...]`, all of them by default.

Every table runs in a process of its own, so that what one imports is not in another's memory.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from bench import host
from bench.processes import REPOSITORY, BenchError

CACHE = REPOSITORY / ".cache"
TABLES = (
    "server",
    "load",
    "overhead",
    "inspect",
    "quantize",
    "calibrated",
    "aqlm",
    "kernels",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Print measurements.")
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"any of {', '.join(TABLES)}")
    parser.add_argument("--model", type=Path, default=CACHE / "smollm2", help="SmolLM2's folder")
    parser.add_argument("--cache", type=Path, default=CACHE / "bench", help="for large files")
    parser.add_argument("--runs", type=int, default=1, help="runs of each case of `quantize`")
    parser.add_argument("--samples", type=int, default=64, help="sequences of `calibrated`")
    parser.add_argument("--case", action="append", default=[], help="a row of `calibrated`")
    parser.add_argument("--calibration", type=Path, help="text to calibrate with")
    parser.add_argument("--evaluation", type=Path, help="text that `calibrated` measures on")
    parser.add_argument("--no-evaluation", action="store_true", help="leave perplexities out")
    parser.add_argument("--no-peers", action="store_true", help="leave the other tools out")
    arguments = parser.parse_args()
    unknown = set(arguments.tables) - set(TABLES)
    if unknown:
        parser.error(f"no table {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    if arguments.runs < 1:
        parser.error("--runs has to be at least 1")
    if not (arguments.model / "config.json").is_file():
        parser.error(f"no checkpoint in {arguments.model}; run `make model`")
    if len(arguments.tables) == 1:
        sys.exit(print_one(arguments.tables[0], arguments))
    given = [argument for argument in sys.argv[1:] if argument not in TABLES]
    failed = [
        name
        for name in arguments.tables or TABLES
        if subprocess.run([sys.executable, "-m", "bench", name, *given], check=False).returncode
    ]
    if failed:
        sys.exit(f"python -m bench: failed: {', '.join(failed)}")


def print_one(name: str, arguments: argparse.Namespace) -> str | None:
    """Prints a table; returns what went wrong, if anything did."""
    model, cache = arguments.model.resolve(), arguments.cache.resolve()
    print(host.describe(), flush=True)
    try:
        if name == "server":
            from bench import server

            server.main(model, cache)
        elif name == "load":
            from bench import load

            load.main(model, cache)
        elif name == "overhead":
            from bench import overhead

            overhead.main(model, cache)
        elif name == "inspect":
            from bench import inspect

            inspect.main(model, cache)
        elif name == "quantize":
            from bench import quantize

            quantize.main(model, cache, runs=arguments.runs, peers=not arguments.no_peers)
        elif name == "calibrated":
            from bench import calibrated

            calibrated.main(
                model,
                cache,
                runs=arguments.runs,
                peers=not arguments.no_peers,
                calibration=arguments.calibration,
                evaluation=arguments.evaluation,
                samples=arguments.samples,
                cases=arguments.case,
                evaluated=not arguments.no_evaluation,
            )
        elif name == "aqlm":
            from bench import aqlm

            aqlm.main(
                model,
                cache,
                calibration=arguments.calibration,
                peers=not arguments.no_peers,
            )
        else:
            from bench import kernels

            kernels.main([])
    except BenchError as error:
        return f"python -m bench {name}: {error}"
    return None


if __name__ == "__main__":
    main()
