"""Speed of the gguf kernels beside ggml's own, one core, same rows, same process.

    PYTHONPATH=server python bench/kernels.py [TYPE ...]

Runs alternate between the two; a row shows the median of each in MB of float32 per second, and the
median of the ratios of neighbouring runs, which is what stays comparable on a busy machine.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from quantd_server.kernels.gguf import TYPES, dequantize, ggml_library, quantize

COLUMNS = 4096
ROUNDS = 7
SECONDS_PER_RUN = 0.08
"""About how long ggml works in one run."""


def seconds(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare(ours: Callable[[], None], theirs: Callable[[], None]) -> tuple[float, float, float]:
    """Median seconds of each, and the median of theirs / ours."""
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(ROUNDS)]
    return (
        statistics.median(pair[0] for pair in pairs),
        statistics.median(pair[1] for pair in pairs),
        statistics.median(pair[1] / pair[0] for pair in pairs),
    )


def main(names: list[str]) -> None:
    generator = np.random.default_rng(0)
    print(f"{'':8}{'quantize MB/s':>30}{'dequantize MB/s':>30}{'first':>9}")
    print(f"{'type':8}" + f"{'ours':>10}{'ggml':>10}{'ratio':>10}" * 2 + f"{'call s':>9}")
    for name in names or TYPES:
        shape = TYPES[name]
        one_row = generator.normal(0, 0.02, (1, COLUMNS)).astype(np.float32)
        row_blocks = np.empty((1, shape.row_bytes(COLUMNS)), np.uint8)
        row_values = np.empty_like(one_row)
        first_call = seconds(lambda: quantize(one_row, name, row_blocks))
        first_call += seconds(lambda: dequantize(row_blocks, name, row_values))
        once = seconds(lambda: ggml_library.quantize(one_row, name, row_blocks, None))
        once = min(
            seconds(lambda: ggml_library.quantize(one_row, name, row_blocks, None))
            for _ in range(5)
        )
        rows = int(min(4096, max(16, SECONDS_PER_RUN / once)))
        values = generator.normal(0, 0.02, (rows, COLUMNS)).astype(np.float32)
        blocks = np.empty((rows, shape.row_bytes(COLUMNS)), np.uint8)
        decoded = np.empty_like(values)

        ours, theirs, ratio = compare(
            lambda: quantize(values, name, blocks),
            lambda: ggml_library.quantize(values, name, blocks, None),
        )
        line = f"{name:8}{values.nbytes / ours / 1e6:10.0f}{values.nbytes / theirs / 1e6:10.0f}"
        line += f"{ratio:10.2f}"
        if name in ("F32", "F16", "BF16"):
            ours = statistics.median(
                seconds(lambda: dequantize(blocks, name, decoded)) for _ in range(ROUNDS)
            )
            line += f"{values.nbytes / ours / 1e6:10.0f}{'':20}"
        else:
            ours, theirs, ratio = compare(
                lambda: dequantize(blocks, name, decoded),
                lambda: ggml_library.dequantize(blocks, name, decoded),
            )
            line += f"{values.nbytes / ours / 1e6:10.0f}{values.nbytes / theirs / 1e6:10.0f}"
            line += f"{ratio:10.2f}"
        print(f"{line}{first_call:9.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
