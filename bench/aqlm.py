"""Tables: what AQLM loses in the first blocks of SmolLM2, and its solver beside the reference."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.first_blocks import write_first_blocks
from bench.processes import BenchError, server
from bench.quantize import remove
from bench.table import print_table

import quantd
from quantd import v1

SAMPLES = 16
LENGTH = 512
BLOCKS = 4

METHODS: dict[str, tuple[str, dict[str, Any], v1.MethodConfig]] = {
    "AQLM 2x8": (
        "aqlm",
        {"num_codebooks": 2, "nbits_per_codebook": 8},
        quantd.aqlm(2, 8),
    ),
    "AQLM 2x8, not tuned": (
        "aqlm",
        {"num_codebooks": 2, "nbits_per_codebook": 8, "finetune_max_epochs": 0},
        quantd.aqlm(2, 8, finetune_max_epochs=0),
    ),
    "GPTQ 2 bits, groups of 64": (
        "gptq",
        {"bits": 2, "group_size": 64},
        quantd.gptq(2, group_size=64),
    ),
}
"""For each row: the method, its configuration for the server's types, and that of the client."""

SOLVED_BLOCK = 5
SOLVED = ("self_attn.q_proj", "mlp.down_proj")
TOLERANCE = 0.01

BLOCK_NOTES = """\
Squared error of a block's output as a part of what the block adds to its input, on the calibration
data and with the source's inputs for every block. ratio: to the first row."""

SOLVER_NOTES = """\
relative error: tr(D G D') / tr(W G W') where D is what the weight lost and G the second moment of
its input in the source. Same weight, G, tolerance, and number of threads. Ours begins in a warm
process (kernels are compiled); the reference's time is that of `quantize`; k-means is in both.
The reference is Vahe1994/AQLM, in the folder that QUANTD_AQLM_REFERENCE names."""


def main(model: Path, cache: Path, *, calibration: Path | None, peers: bool) -> None:
    """Measures and prints; arguments as for ``bench.calibrated``."""
    folder = cache / "aqlm"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        text = Path(shutil.copy(calibration, folder / "calibration.txt")) if calibration else None
        tokens = _tokens(model, text)
        _print_blocks(model, folder, text, tokens)
        _print_solver(model, folder, tokens, peers=peers)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _tokens(model: Path, text: Path | None) -> list[list[int]]:
    """The sequences that jobs use."""
    from quantd_server.calibration.config import CalibrationConfig, CalibrationFile
    from quantd_server.calibration.data import read_calibration
    from quantd_server.calibration.resolution import resolve_calibration

    config = CalibrationConfig(
        file=CalibrationFile(uri="text") if text else None,
        num_samples=SAMPLES,
        sequence_length=LENGTH,
    )
    paths = {"text": str(text)} if text else {}
    found = read_calibration(resolve_calibration(config, LENGTH), model, paths)
    return [list(sequence) for sequence in found.sequences]


def _print_blocks(model: Path, folder: Path, text: Path | None, tokens: list[list[int]]) -> None:
    import torch
    from bench.block_errors import block_errors

    source = write_first_blocks(model, folder / "source", BLOCKS)
    data = quantd.calibration(file=text, num_samples=SAMPLES, sequence_length=LENGTH)
    results, walls = [], []
    with server(reads=folder, writes=folder) as running, quantd.Client(running.address) as client:
        for number, (method, config, message) in enumerate(METHODS.values()):
            output = folder / f"result{number}"
            start = time.perf_counter()
            client.quantize(source, output, message, calibration=data).result()
            walls.append(f"{time.perf_counter() - start:.0f}")
            results.append((method, config, output))
    errors = block_errors(source, results, torch.tensor(tokens))
    names = [*METHODS, "rounding to 2 bits, groups of 64"]
    rows = [
        [name, *(f"{error:.4f}" for error in row), f"{_mean_ratio(row, errors[0]):.1f}", wall]
        for name, row, wall in zip(names, errors, [*walls, ""], strict=True)
    ]
    for _, _, output in results:
        remove(output)
    print_table(
        f"The first {BLOCKS} blocks, {SAMPLES} x {LENGTH} tokens",
        ["", *(f"block {index}" for index in range(BLOCKS)), "ratio", "wall s"],
        rows,
        notes=BLOCK_NOTES,
    )


def _mean_ratio(row: Sequence[float], first: Sequence[float]) -> float:
    """Of sums, each block weighing the same: the geometric mean of the ratios."""
    product = 1.0
    for error, least in zip(row, first, strict=True):
        product *= error / least
    return float(product ** (1 / len(row)))


def _print_solver(model: Path, folder: Path, tokens: list[list[int]], *, peers: bool) -> None:
    reference = os.environ.get("QUANTD_AQLM_REFERENCE") if peers else None
    if peers and not reference:
        print(
            "the reference is left out: QUANTD_AQLM_REFERENCE names no folder of Vahe1994/AQLM",
            file=sys.stderr,
        )
    problems = _problems(model, folder, tokens)
    rows = []
    for name, problem in problems.items():
        seconds, error = _ours(problem)
        row = [name, f"{seconds:.1f}", f"{error:.5f}"]
        if reference:
            their_seconds, their_error = _theirs(Path(reference), problem)
            row += [f"{their_seconds:.1f}", f"{their_error:.5f}"]
            row += [f"{their_seconds / seconds:.1f}", f"{error / their_error:.3f}"]
        rows.append(row)
        print(" | ".join(row), file=sys.stderr, flush=True)
    print_table(
        f"Solving a weight of block {SOLVED_BLOCK}, 2x8, tolerance {TOLERANCE}",
        ["", "s", "relative error"]
        + (["reference s", "relative error", "time ratio", "error ratio"] if reference else []),
        rows,
        notes=SOLVER_NOTES,
    )


def _problems(model: Path, folder: Path, tokens: list[list[int]]) -> dict[str, Path]:
    """Files of a weight and the second moment of its input in the source, by its name."""
    import torch
    from safetensors.torch import save_file

    from quantd_server.calibration.activations import ActivationStore
    from quantd_server.calibration.model import BlockwiseModel
    from quantd_server.calibration.parameters import CheckpointParameters
    from quantd_server.calibration.walk import BlockWalk
    from quantd_server.checkpoint.huggingface import open_huggingface
    from quantd_server.checkpoint.reading import TensorReader

    source = write_first_blocks(model, folder / "solved", SOLVED_BLOCK + 1)
    checkpoint = open_huggingface(source)
    files = {}
    with TensorReader(source) as reader, ActivationStore(1 << 28, folder) as store:
        walked = BlockwiseModel(checkpoint.config, CheckpointParameters(checkpoint, reader))
        sequences = [torch.tensor(sequence) for sequence in tokens]
        targets = {f"model.layers.{SOLVED_BLOCK}.{name}" for name in SOLVED}
        for block in BlockWalk(walked, sequences, store=store, targets=targets):
            for stage in block.stages():
                for group in stage.groups:
                    statistics = group.statistics()
                    for name in group.names:
                        files[name] = folder / f"{name}.safetensors"
                        gram = statistics.gram / statistics.tokens
                        save_file({"weight": stage.weight(name), "gram": gram}, files[name])
    return files


def _ours(problem: Path) -> tuple[float, float]:
    """Seconds, and the relative error."""
    from safetensors.torch import load_file

    from quantd_server.kernels.aqlm.solver import solve
    from quantd_server.kernels.output_error import squared_output_error
    from quantd_server.methods.aqlm.method import DEFAULTS
    from quantd_server.methods.aqlm.solving import solver_settings
    from quantd_server.methods.configs import AqlmConfig, filled

    chosen = AqlmConfig(num_codebooks=2, nbits_per_codebook=8, relative_mse_tolerance=TOLERANCE)
    settings = solver_settings(filled(chosen, DEFAULTS), 0)
    tensors = load_file(problem)
    weight, gram = tensors["weight"], tensors["gram"]
    solve(weight[:32], gram, settings)  # compiles
    start = time.perf_counter()
    solution = solve(weight, gram, settings)
    seconds = time.perf_counter() - start
    return seconds, solution.squared_error / squared_output_error(weight, gram)


def _theirs(reference: Path, problem: Path) -> tuple[float, float]:
    """The same of the reference, which runs in a process of its own."""
    import torch

    script = Path(__file__).with_name("aqlm_peer.py")
    threads = str(torch.get_num_threads())
    # -P: else this folder comes first, and its inspect.py hides the standard library's.
    finished = subprocess.run(
        [sys.executable, "-P", str(script), str(reference), str(problem), threads, str(TOLERANCE)],
        capture_output=True,
        text=True,
        timeout=7200.0,
        check=False,
    )
    if finished.returncode:
        raise BenchError(f"the reference failed:\n{finished.stderr[-2000:]}")
    found = json.loads(finished.stdout.splitlines()[-1])
    return found["seconds"], found["relative_error"]
