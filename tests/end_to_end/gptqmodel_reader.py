"""Run by the Python that has gptqmodel: loads checkpoints with transformers and says what they
compute.

    python gptqmodel_reader.py < request.json

The request: {"checkpoints": {name: folder}, "tokens": [[id, ...]], "dtype": "float32",
"output": folder}. For each name the output folder gets name.npy, the logits; standard output gets
one line of JSON, by name the classes of the quantized layers and the tokens that were generated.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM


def read(folder: str, tokens: list[list[int]], dtype: torch.dtype):
    """Logits [sequences, length, vocabulary], classes of layers, generated tokens."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, device_map="cpu", local_files_only=True
    )
    model.eval()
    layers = {type(module).__name__ for module in model.modules() if hasattr(module, "qweight")}
    ids = torch.tensor(tokens)
    with torch.inference_mode():
        logits = model(ids, use_cache=False).logits.float().numpy()
        generated = model.generate(ids[:1, :8], max_new_tokens=6, do_sample=False)
    return logits, sorted(layers), generated[0].tolist()


def main() -> None:
    request = json.load(sys.stdin)
    report = {}
    with contextlib.redirect_stdout(sys.stderr):  # gptqmodel prints
        for name, folder in request["checkpoints"].items():
            logits, layers, generated = read(
                folder, request["tokens"], getattr(torch, request["dtype"])
            )
            np.save(Path(request["output"]) / f"{name}.npy", logits)
            report[name] = {"layers": layers, "generated": generated}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
