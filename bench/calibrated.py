"""Tables: time, memory and quality of GPTQ, AWQ and AQLM on SmolLM2, beside GPTQModel."""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.prediction import Prediction, print_predictions
from bench.processes import BenchError, Measured, Server, WorkerWatch, measure, server
from bench.quantize import remove
from bench.table import MEGABYTE, print_table

import quantd
from quantd import v1

NOTES = """\
wall: from the request to the last event, or from the start of the peer's process to its end, with
start-up and writing. CPU: what all processors worked for it, ours with the server. peak: largest
resident memory of the process that quantizes. Both get the same token sequences. Perplexities are
quantd's own, of the source and of what was written, on text that was not calibrated with; they are
measured in a job of their own, which is not timed. Ratios above 1 are in favour of quantd.
GPTQModel runs with the Python that QUANTD_GPTQMODEL_PYTHON names."""

SAMPLES = 64
LENGTH = 512
GROUP_SIZE = 64
"""SmolLM2's hidden size, 576, is not a multiple of 128."""


@dataclass(frozen=True)
class Case:
    """One row."""

    name: str
    method: v1.MethodConfig
    peer: str | None = None
    """Argument of `bench.gptqmodel_peer`."""


@dataclass
class Runs:
    """What was measured for one case."""

    ours: list[Measured] = field(default_factory=list)
    peer: list[Measured] = field(default_factory=list)
    source_perplexity: float = math.nan
    perplexity: float = math.nan
    kl_divergence: float = math.nan


CASES = (
    Case("GPTQ 4 bits", quantd.gptq(4, group_size=GROUP_SIZE), "gptq"),
    Case("GPTQ 4 bits, asymmetric", quantd.gptq(4, group_size=GROUP_SIZE, sym=False)),
    Case("GPTQ 3 bits", quantd.gptq(3, group_size=GROUP_SIZE)),
    Case("AWQ", quantd.awq(group_size=GROUP_SIZE), "awq"),
    Case("AWQ, GPTQ's solver", quantd.awq(group_size=GROUP_SIZE, gptq_solver=True)),
    Case("AQLM 2x8", quantd.aqlm(2, 8)),
)


def main(
    model: Path,
    cache: Path,
    *,
    runs: int,
    peers: bool,
    calibration: Path | None,
    evaluation: Path | None,
    samples: int = SAMPLES,
    cases: Sequence[str] = (),
    evaluated: bool = True,
) -> None:
    """Measures and prints.

    Args:
        model: A checkpoint of SmolLM2.
        cache: Folder for outputs, which are removed again.
        runs: Runs of each; ours and the peer's take turns.
        peers: Whether to run the peer.
        calibration: Text to calibrate with; the server's own if not given.
        evaluation: Text to measure on; the server's own if not given.
        samples: Sequences of 512 tokens.
        cases: Which, by name; all if none is named.
        evaluated: Whether to measure perplexities, which takes a job more of each case.
    """
    chosen = [case for case in CASES if not cases or case.name in cases]
    if len(chosen) < len(cases):
        names = ", ".join(f'"{case.name}"' for case in CASES)
        raise BenchError(f"there are the cases {names}, not all of {', '.join(cases)}")
    outputs = cache / "outputs"
    shutil.rmtree(outputs, ignore_errors=True)
    outputs.mkdir(parents=True)
    copies = cache / "texts"
    copies.mkdir(exist_ok=True)
    python = os.environ.get("QUANTD_GPTQMODEL_PYTHON") if peers else None
    if peers and not python:
        print("GPTQModel is left out: QUANTD_GPTQMODEL_PYTHON names no Python", file=sys.stderr)
    measured = {case.name: Runs() for case in chosen}
    predictions: list[Prediction] = []
    try:
        with server(reads=model.parent, writes=cache) as running:
            data = quantd.calibration(
                file=_copied(calibration, copies) if calibration else None,
                num_samples=samples,
                sequence_length=LENGTH,
            )
            held_out = quantd.evaluation(file=_copied(evaluation, copies) if evaluation else None)
            tokens = _tokens_file(model, calibration, outputs, samples)
            for case in chosen:
                took = measured[case.name]
                if evaluated:
                    _, prediction, result = _run_ours(running, case, model, outputs, data, held_out)
                    predictions.append(prediction)
                    took.source_perplexity = result.evaluation.source_perplexity
                    took.perplexity = result.evaluation.perplexity
                    took.kl_divergence = result.evaluation.kl_divergence
                for _ in range(runs):
                    ours, prediction, _ = _run_ours(running, case, model, outputs, data, None)
                    took.ours.append(ours)
                    predictions.append(prediction)
                    if python and case.peer:
                        took.peer.append(_run_peer(python, case.peer, model, outputs, tokens))
                print(" | ".join(_row(case.name, took)), file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(outputs, ignore_errors=True)
        shutil.rmtree(copies, ignore_errors=True)
    source = _known(measured[chosen[0].name].source_perplexity, 2)
    print_table(
        f"{samples} x {LENGTH} tokens, group size {GROUP_SIZE}; "
        f"perplexity of the source {source or 'not measured'}; median of {runs} run(s)",
        ["", "perplexity", "KL", "wall s", "CPU s", "peak MB"]
        + ["GPTQModel wall s", "CPU s", "peak MB", "time ratio", "CPU ratio", "memory ratio"],
        [_row(name, took) for name, took in measured.items()],
        notes=NOTES,
    )
    print_predictions(predictions)


def _run_ours(
    running: Server,
    case: Case,
    model: Path,
    outputs: Path,
    data: v1.CalibrationConfig,
    held_out: v1.EvaluationConfig | None,
) -> tuple[Measured, Prediction, v1.QuantizationResult]:
    output = outputs / "ours"
    with quantd.Client(running.address) as client, WorkerWatch(running.pid) as watch:
        plan = client.plan(
            model,
            case.method,
            output=output,
            tensors=False,
            calibration=data,
            evaluation=held_out,
        ).plan
        start = time.perf_counter()
        result = client.quantize(
            model, output, case.method, calibration=data, evaluation=held_out
        ).result()
        wall = time.perf_counter() - start
    remove(output)
    prediction = Prediction(
        model=model.name,
        case=f"{case.name}, evaluated" if held_out else case.name,
        planned_size=plan.output_bytes,
        size=result.output_bytes,
        planned_peak=plan.peak_memory_bytes,
        peak=result.peak_memory_bytes,
    )
    return Measured(wall, watch.peak_memory, watch.cpu), prediction, result


def _run_peer(python: str, peer: str, model: Path, outputs: Path, tokens: Path) -> Measured:
    output = outputs / f"peer-{peer}"
    script = Path(__file__).with_name("gptqmodel_peer.py")
    arguments = [peer, str(model), str(output), str(tokens), str(GROUP_SIZE)]
    try:
        # -P: else this folder comes first, and its inspect.py hides the standard library's. The
        # peer writes logs where it is started.
        command = [python, "-P", str(script), *arguments]
        return measure(command, timeout=7200.0, folder=outputs)
    finally:
        remove(output)


def _tokens_file(model: Path, calibration: Path | None, outputs: Path, samples: int) -> Path:
    """The sequences that quantd's jobs use, for the peer."""
    from quantd_server.calibration.config import CalibrationConfig, CalibrationFile
    from quantd_server.calibration.data import read_calibration
    from quantd_server.calibration.resolution import resolve_calibration

    config = CalibrationConfig(
        file=CalibrationFile(uri="text") if calibration else None,
        num_samples=samples,
        sequence_length=LENGTH,
    )
    paths = {"text": str(calibration)} if calibration else {}
    found = read_calibration(resolve_calibration(config, LENGTH), model, paths)
    path = outputs / "tokens.json"
    path.write_text(json.dumps([list(sequence) for sequence in found.sequences]))
    return path


def _copied(text: Path, folder: Path) -> Path:
    """A copy below the server's roots."""
    return Path(shutil.copy(text, folder / text.name))


def _known(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _row(name: str, took: Runs) -> list[str]:
    wall = statistics.median(run.wall for run in took.ours)
    cpu = statistics.median(run.cpu for run in took.ours)
    peak = statistics.median(run.peak_memory for run in took.ours)
    cells = [
        name,
        _known(took.perplexity, 2),
        _known(took.kl_divergence, 3),
        f"{wall:.0f}",
        f"{cpu:.0f}",
        f"{peak / MEGABYTE:.0f}",
    ]
    if not took.peer:
        return [*cells, *[""] * 6]
    peer_wall = statistics.median(run.wall for run in took.peer)
    peer_cpu = statistics.median(run.cpu for run in took.peer)
    peer_peak = statistics.median(run.peak_memory for run in took.peer)
    return [
        *cells,
        f"{peer_wall:.0f}",
        f"{peer_cpu:.0f}",
        f"{peer_peak / MEGABYTE:.0f}",
        f"{peer_wall / wall:.1f}",
        f"{peer_cpu / cpu:.1f}",
        f"{peer_peak / peak:.1f}",
    ]
