"""What a GGUF file will hold: the domain types of this room.

A description is made from headers and JSON files alone; no weight is read. Shapes are row-major
(PyTorch order, the last dimension is contiguous); GGUF itself stores them reversed.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from quantd_server.errors import Finding

Transform = Literal["copy", "permute_heads", "add_one"]
"""How a source weight becomes a GGUF tensor, before its type is changed.

- ``copy``: as it is.
- ``permute_heads``: rows go from the half-rotated order of transformers to the interleaved order
  of llama.cpp's LLAMA rope: ``w.reshape(heads, 2, rows // heads // 2, ...).swapaxes(1, 2)``,
  back in the old shape.
- ``add_one``: ``w + 1`` (Gemma stores RMS norm weights relative to one).
"""


class MetadataEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One key of a GGUF header."""

    key: str
    type: str
    """As in ``checkpoint.gguf_header.MetadataValue``: ``uint32``, ``string``, ``array:float32``."""
    value: Any


class ConvertedTensor(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of the GGUF file and where its values come from."""

    name: str
    source: str | None
    """Name in the checkpoint; None for a tensor that is made from ``values``."""
    source_dtype: str
    """Type of the source in safetensors' words (``BF16``, ``F16``, ``F32``, ...)."""
    shape: tuple[int, ...]
    transform: Transform = "copy"
    head_count: int | None = None
    """Number of heads for ``permute_heads``."""
    values: tuple[float, ...] | None = None
    """Float32 values of a generated tensor (rope factors)."""
    keep_f32: bool = False
    """Norms, biases and tables stay F32 in every file type."""


class SkippedTensor(msgspec.Struct, frozen=True, kw_only=True):
    """A source tensor that the GGUF file does not need, and why."""

    name: str
    reason: str


class ArchitectureDescription(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint in llama.cpp's words. Usable if no finding is an ERROR."""

    gguf_arch: str
    metadata: tuple[MetadataEntry, ...]
    tensors: tuple[ConvertedTensor, ...]
    """In file order: token embedding, blocks in order, final norm, output, generated ones."""
    skipped: tuple[SkippedTensor, ...]
    findings: tuple[Finding, ...]

    def scalar(self, suffix: str, default: int = 0) -> int:
        """The integer under ``<arch>.<suffix>``, e.g. ``block_count``."""
        key = f"{self.gguf_arch}.{suffix}"
        return next((int(e.value) for e in self.metadata if e.key == key), default)


def uint32(key: str, value: int) -> MetadataEntry:
    return MetadataEntry(key=key, type="uint32", value=value)


def float32(key: str, value: float) -> MetadataEntry:
    return MetadataEntry(key=key, type="float32", value=value)


def boolean(key: str, *, value: bool) -> MetadataEntry:
    return MetadataEntry(key=key, type="bool", value=value)


def string(key: str, value: str) -> MetadataEntry:
    return MetadataEntry(key=key, type="string", value=value)


def array(key: str, element_type: str, values: list[Any]) -> MetadataEntry:
    return MetadataEntry(key=key, type=f"array:{element_type}", value=values)
