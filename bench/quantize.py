"""Tables: time and memory of quantizing the synthetic model, beside the tools people use today, and
beside what the plan said.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import host, synthetic
from bench.prediction import Prediction, print_predictions
from bench.processes import Measured, Server, WorkerWatch, measure, server
from bench.table import MEGABYTE, print_table, ratio

import quantd

NOTES = """\
wall: from the request to the last event, or from the start of the peer's process to its end; the
peer's own start-up (Python and its imports) is in it and shown beside it. peak: largest resident
memory of the process that quantizes, as the job's result says and, after the slash, as seen in
/proc; the peer's is the kernel's count. Files are in the page cache before every run. quantd also
measures every tensor's error, hashes what it wrote and syncs it to disk. llama.cpp reads the .gguf
of the first row, quantd the Hugging Face checkpoint. Ratios above 1 are in favour of quantd."""


@dataclass(frozen=True)
class Case:
    """One row."""

    name: str
    method: quantd.MethodConfig
    suffix: str = ""
    peer: tuple[str, str] | None = None
    """Arguments of `bench.peers`."""


@dataclass
class Runs:
    """What was measured for one case."""

    ours: list[Measured] = field(default_factory=list)
    peer: list[Measured] = field(default_factory=list)


NF4 = quantd.bitsandbytes_4bit("nf4", bnb_4bit_use_double_quant=True)
CASES = (
    Case("BF16 .gguf", quantd.gguf("BF16"), ".gguf"),
    Case("NF4, double", NF4, "", ("bitsandbytes", "nf4")),
    Case("NF4", quantd.bitsandbytes_4bit("nf4")),
    Case("FP4", quantd.bitsandbytes_4bit("fp4")),
    Case("int8", quantd.bitsandbytes_8bit(), "", ("bitsandbytes", "int8")),
    Case("Q8_0", quantd.gguf("Q8_0"), ".gguf", ("llama_cpp", "Q8_0")),
    Case("Q4_0", quantd.gguf("Q4_0"), ".gguf"),
    Case("Q4_K_M", quantd.gguf("Q4_K_M"), ".gguf", ("llama_cpp", "Q4_K_M")),
    Case("Q6_K", quantd.gguf("Q6_K"), ".gguf"),
    Case("IQ4_XS", quantd.gguf("IQ4_XS"), ".gguf"),
)


def main(model: Path, cache: Path, *, runs: int, peers: bool) -> None:
    """Measures and prints.

    Args:
        model: A checkpoint of SmolLM2, for its tokenizer.
        cache: Folder for the synthetic model and for outputs, which are removed again.
        runs: Runs of each; ours and the peer's take turns.
        peers: Whether to run the peers.
    """
    source = cache / "llama-1b"
    synthetic.ensure(source, model)
    outputs = cache / "outputs"
    shutil.rmtree(outputs, ignore_errors=True)
    outputs.mkdir()
    host.read_all(source)
    measured = {case.name: Runs() for case in CASES}
    predictions: list[Prediction] = []
    float_gguf = outputs / "source.gguf"
    try:
        with server(reads=source, writes=outputs) as running:
            predictions += warm_up(running, model, outputs)
            for _ in range(runs):
                for case in CASES:
                    took = measured[case.name]
                    keep = float_gguf if case is CASES[0] and not float_gguf.exists() else None
                    ours, prediction = run_ours(running, case, source, outputs, keep)
                    took.ours.append(ours)
                    predictions.append(prediction)
                    if peers and case.peer is not None and available(case.peer[0]):
                        read = float_gguf if case.peer[0] == "llama_cpp" else source
                        took.peer.append(run_peer(case.peer, read, outputs))
                    print(f"measured {case.name}", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(outputs, ignore_errors=True)
    print_results(measured, runs)
    print_predictions(predictions)


def warm_up(running: Server, model: Path, outputs: Path) -> list[Prediction]:
    """One small job with every method, so that compiled kernels are on disk as after any use."""
    copy = outputs / model.name
    shutil.copytree(model, copy)
    try:
        return [run_ours(running, case, copy, outputs, None)[1] for case in CASES]
    finally:
        remove(copy)


def run_ours(
    running: Server, case: Case, source: Path, outputs: Path, keep: Path | None
) -> tuple[Measured, Prediction]:
    """One job; its output is removed, or kept as `keep`."""
    output = outputs / f"ours{case.suffix}"
    with quantd.Client(running.address) as client, WorkerWatch(running.pid) as watch:
        plan = client.plan(source, case.method, output=output, tensors=False).plan
        start = time.perf_counter()
        result = client.quantize(source, output, case.method).result()
        wall = time.perf_counter() - start
    if keep is not None:
        output.rename(keep)
    remove(output)
    report = {
        "result_peak": result.peak_memory_bytes,
        "output_bytes": result.output_bytes,
        "error": result.relative_error,
    }
    prediction = Prediction(
        model=source.name,
        case=case.name,
        planned_size=plan.output_bytes,
        size=result.output_bytes,
        planned_peak=plan.peak_memory_bytes,
        peak=result.peak_memory_bytes,
    )
    return Measured(wall, watch.peak_memory, watch.cpu, report), prediction


def run_peer(peer: tuple[str, str], source: Path, outputs: Path) -> Measured:
    """One run of a peer; its output is removed."""
    output = outputs / f"peer-{peer[1]}"
    try:
        return measure([sys.executable, "-m", "bench.peers", *peer, str(source), str(output)])
    finally:
        remove(output)


def available(peer: str) -> bool:
    """Whether a peer can be run here; says why not."""
    if peer == "llama_cpp" and not os.environ.get("QUANTD_LLAMA_CPP"):
        print("llama.cpp is left out: QUANTD_LLAMA_CPP names no folder with it", file=sys.stderr)
        return False
    return True


def remove(output: Path) -> None:
    """Removes a file or a folder if it is there."""
    if output.is_dir():
        shutil.rmtree(output)
    else:
        output.unlink(missing_ok=True)


def print_results(measured: dict[str, Runs], runs: int) -> None:
    """Prints the table: medians."""
    rows = [row(name, took) for name, took in measured.items()]
    print_table(
        f"Quantizing 1.07 B parameters, bf16, 4 shards; median of {runs} run(s) each",
        ["", "wall s", "peak MB", "output MB", "error"]
        + ["peer", "peer wall s", "start-up s", "peer peak MB", "time ratio", "memory ratio"],
        rows,
        notes=NOTES,
    )


def row(name: str, took: Runs) -> Sequence[str]:
    """The cells of one case."""
    wall = statistics.median(run.wall for run in took.ours)
    seen = statistics.median(run.peak_memory for run in took.ours)
    said = statistics.median(run.report["result_peak"] for run in took.ours)
    report = took.ours[0].report
    cells = [
        name,
        f"{wall:.1f}",
        f"{said / MEGABYTE:.0f} / {seen / MEGABYTE:.0f}",
        f"{report['output_bytes'] / MEGABYTE:.0f}",
        f"{report['error']:.2%}",
    ]
    if not took.peer:  # left out, or there is none
        return [*cells, *["-"] * 6]
    peer = next(case.peer for case in CASES if case.name == name)
    assert peer is not None
    peer_wall = statistics.median(run.wall for run in took.peer)
    peer_peak = statistics.median(run.peak_memory for run in took.peer)
    start_up = statistics.median(run.report["start_up"] for run in took.peer)
    walls = zip(took.ours, took.peer, strict=True)
    return [
        *cells,
        peer[0].replace("_", "."),
        f"{peer_wall:.1f}",
        f"{start_up:.1f}",
        f"{peer_peak / MEGABYTE:.0f}",
        ratio(statistics.median(theirs.wall / ours.wall for ours, theirs in walls)),
        ratio(peer_peak / max(said, seen)),
    ]
