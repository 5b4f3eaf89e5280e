"""Fuzz targets for a while: ``python -m tests.fuzz [TARGET…] [--seconds 600]``. Needs atheris.

What is found on the way stays in ``.cache/fuzz/TARGET/``, so that the next run goes on with it. An
input that fails lies beside it, and again fails with ``python -m tests.fuzz TARGET --replay FILE``.
``--keep`` makes the committed corpus, ``tests/fuzz/corpus``, of as few of all these inputs as reach
every edge that they reach.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.corpus import TARGETS, inputs, store, target_named
from tests.fuzz.target import FOLDER_VARIABLE, temporary_folder

from quantd_server.planning.planner_process import ONE_THREAD

REPOSITORY = Path(__file__).resolve().parent.parent.parent
WORK = REPOSITORY / ".cache" / "fuzz"
HANG_SECONDS = 120
"""Of the clock, which runs on while others have the machine; ``bounds.CPU_SECONDS`` is stricter,
but looks only afterwards."""
PROGRESS = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)/(\w+)")


def main() -> int:
    """Run the targets one after the other; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("--keep", action="store_true", help="make the committed corpus anew")
    parser.add_argument("--replay", type=Path, help="run one input, and nothing else")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(TARGETS):
        parser.error(f"no target is called {', '.join(sorted(unknown))}")
    targets = arguments.targets or TARGETS
    if arguments.replay:
        for name in targets:
            target_named(name).run(arguments.replay.read_bytes())
        return 0
    failed = [name for name in targets if not _fuzz(name, arguments.seconds)]
    if arguments.keep:
        for name in targets:
            _keep(name)
    return 1 if failed else 0


def _fuzz(name: str, seconds: int) -> bool:
    """Whether nothing was found."""
    work = WORK / name
    work.mkdir(parents=True, exist_ok=True)
    for place, content in inputs(name).items():
        (work / place).write_bytes(content)
    findings = WORK / f"{name}-"
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={HANG_SECONDS}",
        f"-artifact_prefix={findings}",
        "-print_final_stats=1",
        "-use_value_profile=1",
    ]
    first = last = None
    executions = "?"
    log = WORK / f"{name}.log"
    start = time.monotonic()
    with _atheris(name, *options, str(work)) as process, log.open("w") as copy:
        assert process.stdout is not None
        for line in process.stdout:
            copy.write(line)
            if progress := PROGRESS.search(line):
                first = first if first and "INITED" not in line else progress
                last = progress
            if line.startswith("stat::number_of_executed_units"):
                executions = line.split()[-1]
    if first and last:
        taken = time.monotonic() - start
        print(
            f"{name}: {executions} executions in {taken:.0f} s; edges {first[1]} -> {last[1]}, "
            f"features {first[2]} -> {last[2]}, corpus {last[3]} inputs, {last[4]}"
        )
    if process.returncode:
        print(f"{name}: FAILED, see {log}")
    return process.returncode == 0


def _keep(name: str) -> None:
    """The committed corpus becomes a small set of inputs that reach all that is reached."""
    merged = WORK / f"{name}.merged"
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir()
    # By edges alone: how often each was taken would make it many times as large.
    options = ["-set_cover_merge=1", "-use_counters=0", str(merged), str(WORK / name)]
    with _atheris(name, *options) as process:
        output = process.communicate()[0]
    if process.returncode:
        sys.exit(f"{name}: the corpus could not be made smaller:\n{output[-2000:]}")
    kept = store(name, [path.read_bytes() for path in merged.iterdir()])
    print(f"{name}: {kept} inputs in the corpus")


class _atheris:  # noqa: N801 - used as a function
    """A process that fuzzes, whose files go when it has ended."""

    def __init__(self, name: str, *options: str) -> None:
        self._folder = temporary_folder()
        self._command = [sys.executable, "-m", "tests.fuzz.fuzzing", name, *options]

    def __enter__(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            self._command,
            cwd=REPOSITORY,
            env=os.environ | ONE_THREAD | {FOLDER_VARIABLE: str(self._folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        return self._process

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill() if exc_info[0] else self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
