"""The reference quantizer of AQLM on one weight, 2x8, groups of 8.

    PYTHON -P bench/aqlm_peer.py REFERENCE PROBLEM.safetensors THREADS TOLERANCE

REFERENCE is a folder of Vahe1994/AQLM. The last line of standard output is JSON: `seconds` of
`AQEngine.quantize`, and `relative_error`.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace


def main(reference: str, problem: str, threads: str, tolerance: str) -> None:
    import torch
    from safetensors.torch import load_file

    sys.path.insert(0, reference)
    from aq_engine import AQEngine  # type: ignore[import-not-found]

    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    tensors = load_file(problem)
    weight, gram = tensors["weight"], tensors["gram"].double()
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight
    engine = AQEngine(layer)
    engine.XTX.copy_(gram)
    arguments = Namespace(
        devices=[torch.device("cpu")],
        in_group_size=8,
        out_group_size=1,
        num_codebooks=2,
        nbits_per_codebook=8,
        codebook_value_nbits=16,
        codebook_value_num_groups=1,
        scale_nbits=0,
        init_max_iter=100,
        init_max_points_per_centroid=None,
        max_epochs=1000,
        steps_per_epoch=100,
        relative_mse_tolerance=float(tolerance),
        lr=1e-4,
        beam_size=1,
        print_frequency=100,
    )
    start = time.perf_counter()
    quantized = engine.quantize(args=arguments, verbose=False)
    seconds = time.perf_counter() - start
    with torch.no_grad():
        lost = (weight - quantized()).double()
    error = float(((lost @ gram) * lost).sum())
    energy = float(((weight.double() @ gram) * weight.double()).sum())
    print()
    print(json.dumps({"seconds": seconds, "relative_error": error / energy}))


if __name__ == "__main__":
    main(*sys.argv[1:])
