"""`make demo`: quantizes a real model through a server, twice, and shows what came out.

It works through the command line, and prints each command before running it.

Usage: python tools/demo.py [--model DIRECTORY] [--output DIRECTORY]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import model
import quantd
from quantd import v1

REPOSITORY = Path(__file__).resolve().parent.parent
START_TIMEOUT = 60.0
"""Seconds the server may take to start on a busy machine."""
MEGABYTE = 1_000_000
QUANTD = (sys.executable, "-m", "quantd_server")
"""The command `quantd`, whether or not it is on PATH."""

JOBS = (
    ("smollm2-Q4_K_M.gguf", ("--method", "gguf", "--type", "Q4_K_M")),
    (
        "smollm2-nf4",
        ("--method", "bitsandbytes-4bit", "--quant-type", "nf4", "--double-quant"),
    ),
)
"""Name of each output, and what makes it."""

console = Console(highlight=False)


class DemoError(Exception):
    """The demo cannot go on; the text says why."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Quantize a real model through a server.")
    parser.add_argument("--model", type=Path, default=REPOSITORY / ".cache/smollm2")
    parser.add_argument("--output", type=Path, default=REPOSITORY / ".cache/demo")
    arguments = parser.parse_args()
    # The server must not outlive us, however we are asked to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("demo: asked to stop"))
    try:
        run(arguments.model.resolve(), arguments.output.resolve())
    except (DemoError, model.ModelError, quantd.QuantdError) as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit("demo: interrupted")


def run(source: Path, output: Path) -> None:
    """Makes the model if need be, quantizes it, and prints a summary."""
    model.ensure(source)
    outputs = [output / name for name, _ in JOBS]
    output.mkdir(parents=True, exist_ok=True)
    for path in outputs:
        remove(path)
    console.rule("quantd: SmolLM2-135M-Instruct to GGUF and to NF4")
    with serving(source, output) as address:
        for path, (_, method) in zip(outputs, JOBS, strict=True):
            call("quantize", shown(source), shown(path), *method, server=address)
        with quantd.Client(address) as client:
            jobs = list(client.jobs())
    print_summary(source, outputs, jobs)
    print_next_steps(*outputs)


@contextlib.contextmanager
def serving(source: Path, output: Path) -> Iterator[str]:
    """Runs `quantd serve` on a free port, and yields its address."""
    log = output / "server.log"
    with tempfile.TemporaryDirectory(prefix="quantd-demo-") as folder, log.open("wb") as log_file:
        ready = Path(folder, "ready")
        arguments = [
            *("serve", "--listen", "127.0.0.1:0"),
            *("--source-root", shown(source), "--output-root", shown(output)),
        ]
        print_command(arguments)
        process = subprocess.Popen(
            [*QUANTD, *arguments, "--ready-file", str(ready)],
            cwd=REPOSITORY,
            env=environment(),
            stdout=log_file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C cancels the job; then we stop the server
        )
        try:
            address = wait_until_ready(process, ready, log)
            console.print(f"serving on {address}; its log: {escape(shown(log))}")
            yield address
        finally:
            process.terminate()
            process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], ready: Path, log: Path) -> str:
    """The address that the server says it is bound to."""
    end = time.monotonic() + START_TIMEOUT
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > end:
            raise DemoError(f"the server did not start; its log, {log}:\n{log.read_text()[-2000:]}")
        time.sleep(0.02)
    return ready.read_text().split()[0]


def call(*arguments: str, server: str) -> None:
    """Runs a command of `quantd` in this terminal."""
    print_command(arguments)
    done = subprocess.run(
        [*QUANTD, *arguments],
        cwd=REPOSITORY,
        env=environment() | {"QUANTD_SERVER": server},
        check=False,
    )
    if done.returncode:
        raise DemoError(f"`quantd {arguments[0]}` ended with status {done.returncode}")


def environment() -> dict[str, str]:
    """Ours, without settings for some other server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("QUANTD_")}


def print_command(arguments: list[str] | tuple[str, ...]) -> None:
    console.print(f"\n[bold]$ quantd {escape(shlex.join(arguments))}[/bold]", soft_wrap=True)


def print_summary(source: Path, outputs: list[Path], jobs: list[v1.Job]) -> None:
    """A table of what came out."""
    results = {job.spec.output_uri: job.result for job in jobs}
    size = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("where", no_wrap=True)
    for heading in ("MB", "bits/weight", "error", "seconds", "peak MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row(shown(source), f"{size / MEGABYTE:.0f}", "16.00", *["-"] * 3)
    for path in outputs:
        result = results[str(path)]
        table.add_row(
            shown(path),
            f"{result.output_bytes / MEGABYTE:.0f}",
            f"{result.bits_per_weight:.2f}",
            f"{result.relative_error:.2%}",
            f"{result.elapsed.ToTimedelta().total_seconds():.1f}",
            f"{result.peak_memory_bytes / MEGABYTE:.0f}",
        )
    console.print("\n[bold]What came out[/bold]\n")
    console.print(table)
    console.print("error: sqrt(sum (w - w')² / sum w²) over the quantized weights", style="dim")


def print_next_steps(gguf: Path, nf4: Path) -> None:
    """What to do with the files."""
    console.print(
        f"""
[bold]Next, in transformers[/bold]

from transformers import pipeline
generate = pipeline("text-generation", "{escape(str(nf4))}")
print(generate([{{"role": "user", "content": "What is the capital of France?"}}]))

[bold]or in llama.cpp[/bold]

llama-cli -m {escape(shown(gguf))} -p "What is the capital of France?"

[bold]or with a server that stays[/bold], from Python or any other language: see README.md
""",
        soft_wrap=True,
    )


def remove(path: Path) -> None:
    """Removes what an earlier demo made."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.with_name(f"{path.name}.quantd.json").unlink(missing_ok=True)


def shown(path: Path) -> str:
    """A path as one would type it in the repository."""
    return str(path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path)


if __name__ == "__main__":
    main()
