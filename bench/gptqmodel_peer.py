"""GPTQModel on a checkpoint, with its defaults but for bits and group size.

    PYTHON -P bench/gptqmodel_peer.py gptq|awq SOURCE OUTPUT TOKENS.json GROUP_SIZE

PYTHON has gptqmodel, and nothing of quantd. The last line of standard output is JSON: `seconds` of
loading, quantizing and saving.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # with fewer it does not start on two cores


def main(method: str, source: str, output: str, tokens: str, group_size: str) -> None:
    start = time.perf_counter()
    import torch
    from gptqmodel import GPTQModel, QuantizeConfig  # type: ignore[import-not-found]

    settings = {"quant_method": "awq", "format": "gemm", "sym": False} if method == "awq" else {}
    config = QuantizeConfig(bits=4, group_size=int(group_size), **settings)
    model = GPTQModel.load(source, config)
    loaded = time.perf_counter()
    sequences = json.loads(Path(tokens).read_text())
    samples = [
        {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        for ids in map(torch.tensor, ([sequence] for sequence in sequences))
    ]
    model.quantize(samples, batch_size=1)
    quantized = time.perf_counter()
    model.save(output)
    saved = time.perf_counter()
    seconds = {"load": loaded - start, "quantize": quantized - loaded, "save": saved - quantized}
    print()
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
