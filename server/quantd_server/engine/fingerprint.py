"""Tells whether a source is still the one that was planned, and which one it was."""

from __future__ import annotations

import hashlib
import json
import os

from quantd_server.checkpoint.huggingface import HuggingFaceCheckpoint
from quantd_server.checkpoint.opening import Checkpoint


def source_fingerprint(checkpoint: Checkpoint) -> str:
    """SHA-256 over names, sizes and modification times of the files a job reads, in hexadecimal.

    Not over their contents: that would cost another pass over the source. The engine checks the
    same facts again after its last read.
    """
    names = set(checkpoint.files)
    if isinstance(checkpoint, HuggingFaceCheckpoint):
        names |= {"config.json", *checkpoint.carried_files}
    digest = hashlib.sha256()
    for name in sorted(names):
        status = os.stat(checkpoint.directory / name)
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def headers_digest(checkpoint: Checkpoint) -> str:
    """SHA-256 over what the headers say of every tensor, in hexadecimal: the same wherever the
    checkpoint lies.
    """
    digest = hashlib.sha256()
    for name in sorted(checkpoint.tensors):
        entry = checkpoint.tensors[name]
        description = (name, entry.dtype, entry.shape, entry.file, entry.offset, entry.nbytes)
        digest.update(json.dumps(description).encode() + b"\n")
    return digest.hexdigest()
