"""Paths of checkpoints, as a command takes them and as a server wants them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import quantd
from quantd import v1

FLOAT_SUFFIX = re.compile(r"[-.](f32|f16|bf16|fp16|fp32)$", re.IGNORECASE)
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def absolute(path: str) -> str:
    """The path made absolute; a URI stays as it is."""
    return path if SCHEME.match(path) else os.path.abspath(os.path.expanduser(path))


def local_path(uri: str) -> str | None:
    """The path of a `file:` URI or a path; None for other URIs."""
    if uri.lower().startswith("file:"):
        return unquote(urlsplit(uri).path)
    return None if SCHEME.match(uri) else uri


def local_paths(*uris: str) -> tuple[str, ...]:
    """The paths among `uris`."""
    return tuple(path for uri in uris if uri and (path := local_path(uri)) is not None)


def default_output(source: str, method: v1.MethodConfig) -> str:
    """Where the result goes when nothing was said: beside the source, named after the method.

    "/models/smollm2" gives "/models/smollm2-Q4_K_M.gguf" or "/models/smollm2-nf4", and
    "/models/smollm2-F16.gguf" gives "/models/smollm2-Q4_K_M.gguf".
    """
    path = Path(local_path(source) or source)
    stem = path.stem if path.suffix == ".gguf" else path.name
    stem = FLOAT_SUFFIX.sub("", stem) if path.suffix == ".gguf" else stem
    suffix = ".gguf" if method.WhichOneof("config") == "gguf" else ""
    return str(path.with_name(f"{stem}-{label(method)}{suffix}"))


def label(method: v1.MethodConfig) -> str:
    """Short name of what a method makes: "Q4_K_M", "nf4", "int8", "gptq-4bit"."""
    kind = method.WhichOneof("config")
    if kind == "gguf":
        file_type = method.gguf.file_type or v1.GgufFileType.GGUF_FILE_TYPE_Q4_K_M
        return quantd.name_of(v1.GgufFileType, file_type)
    if kind == "bitsandbytes_4bit":
        quant_type = (
            method.bitsandbytes_4bit.bnb_4bit_quant_type or v1.FourBitType.FOUR_BIT_TYPE_FP4
        )
        return quantd.name_of(v1.FourBitType, quant_type).lower()
    if kind == "bitsandbytes_8bit":
        return "int8"
    if kind == "gptq":
        return f"gptq-{method.gptq.bits or 4}bit"
    if kind == "awq":
        return f"awq-{method.awq.bits or 4}bit"
    return kind or ""
