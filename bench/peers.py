"""What people use today, each run as a program of its own so that its memory and time are its own.

    python -m bench.peers bitsandbytes NAME SOURCE OUTPUT
    python -m bench.peers llama_cpp NAME SOURCE OUTPUT

The last line of standard output is JSON: `start_up` is the seconds until the program's imports
were done.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from pathlib import Path

LLAMA_CPP_FILE_TYPES = {"Q8_0": 7, "Q4_K_M": 15}
"""`llama_ftype` in llama.h."""


def bitsandbytes(name: str, source: Path, output: Path) -> float:
    """Loads with transformers and bitsandbytes and saves, as their manuals say."""
    start = time.perf_counter()
    import torch
    import transformers

    start_up = time.perf_counter() - start
    config = {
        "nf4": transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
        ),
        "int8": transformers.BitsAndBytesConfig(load_in_8bit=True),
    }[name]
    model = transformers.AutoModelForCausalLM.from_pretrained(
        source, quantization_config=config, dtype=torch.bfloat16, device_map="cpu"
    )
    model.save_pretrained(output)
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(output)
    return start_up


def llama_cpp(name: str, source: Path, output: Path) -> float:
    """`llama_model_quantize` on a .gguf file, with as many threads as there are cores."""
    start = time.perf_counter()
    from tests.llama_cpp import LlamaCpp

    class Quantizer(LlamaCpp):
        """The tests' wrapper runs one thread; users do not."""

        def run(self, file_type: int) -> None:
            params = self._llama.llama_model_quantize_default_params()
            params.nthread = len(os.sched_getaffinity(0))
            params.ftype = file_type
            failed = self._llama.llama_model_quantize(
                str(source).encode(), str(output).encode(), ctypes.byref(params)
            )
            if failed:
                sys.exit("llama.cpp does not quantize the file: " + "".join(self.warnings))

    library = Quantizer(Path(os.environ["QUANTD_LLAMA_CPP"]))
    start_up = time.perf_counter() - start
    library.run(LLAMA_CPP_FILE_TYPES[name])
    return start_up


if __name__ == "__main__":
    peer, chosen, source_path, output_path = sys.argv[1:]
    run = {"bitsandbytes": bitsandbytes, "llama_cpp": llama_cpp}[peer]
    print(json.dumps({"start_up": run(chosen, Path(source_path), Path(output_path))}))
