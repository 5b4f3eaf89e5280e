"""Opening a checkpoint of either kind, decided by what is there."""

from __future__ import annotations

import stat
from pathlib import Path

import msgspec

from quantd_server.checkpoint.gguf_header import (
    GgufHeader,
    GgufTensorEntry,
    MetadataValue,
    read_gguf_header,
)
from quantd_server.checkpoint.huggingface import HuggingFaceCheckpoint, open_huggingface
from quantd_server.errors import CheckpointError, quoted


class GgufCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What the header of a GGUF model says. Holds a Path: it stays in its process."""

    directory: Path
    file: str
    header: GgufHeader

    @property
    def tensors(self) -> dict[str, GgufTensorEntry]:
        return self.header.tensors

    @property
    def metadata(self) -> dict[str, MetadataValue]:
        return self.header.metadata

    @property
    def files(self) -> tuple[str, ...]:
        return (self.file,)

    @property
    def total_bytes(self) -> int:
        return self.header.file_size

    @property
    def architecture(self) -> str:
        """``general.architecture``, e.g. ``llama``."""
        return str(self.header.metadata["general.architecture"].value)


Checkpoint = HuggingFaceCheckpoint | GgufCheckpoint


def open_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at ``path``: a folder in Hugging Face's form or a ``.gguf`` file.

    Raises CheckpointError: those of ``open_huggingface`` and ``open_gguf``, SOURCE_NOT_FOUND,
    SOURCE_KIND_UNKNOWN.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        # Also a name that no file system takes. What may not be looked at is not there.
        raise CheckpointError(
            reason="SOURCE_NOT_FOUND",
            message="there is nothing at source_uri",
            remedy="correct source_uri, or put the checkpoint there first",
            kind="not_found",
        ) from None
    if stat.S_ISDIR(mode):
        return open_huggingface(path)
    if path.suffix.lower() == ".gguf":
        return open_gguf(path)
    if path.suffix == ".safetensors":
        raise CheckpointError(
            reason="SOURCE_KIND_UNKNOWN",
            message=f"{quoted(path.name)} is a single safetensors file, without its config.json",
            remedy="let source_uri name the folder that holds it and config.json",
        )
    raise CheckpointError(
        reason="SOURCE_KIND_UNKNOWN",
        message=f"{quoted(path.name)} is neither a folder with config.json nor a .gguf file",
        remedy="let source_uri name such a folder or such a file",
    )


def open_gguf(path: Path) -> GgufCheckpoint:
    """The GGUF model at ``path``.

    Raises CheckpointError: those of ``read_gguf_header``, ARCHITECTURE_MISSING, GGUF_SPLIT,
    NO_WEIGHTS.
    """
    header = read_gguf_header(path)
    architecture = header.metadata.get("general.architecture")
    if architecture is None or architecture.type != "string" or not architecture.value:
        raise CheckpointError(
            reason="ARCHITECTURE_MISSING",
            message=f"{quoted(path.name)} does not name its general.architecture",
            remedy="convert the model again with a current llama.cpp",
        )
    split = header.metadata.get("split.count")
    if split is not None and split.value != 1:
        raise CheckpointError(
            reason="GGUF_SPLIT",
            message=f"{quoted(path.name)} is one part of a split model; whole files are read",
            remedy="join the parts with llama-gguf-split --merge",
            kind="precondition",
        )
    if not header.tensors:
        raise CheckpointError(
            reason="NO_WEIGHTS",
            message=f"{quoted(path.name)} holds no tensors (a vocabulary alone?)",
            remedy="let source_uri name the file with the weights",
        )
    return GgufCheckpoint(directory=path.parent, file=path.name, header=header)
