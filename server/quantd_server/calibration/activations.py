"""Activations between two passes: in memory up to a budget, the rest in a file (worker only)."""

from __future__ import annotations

import bisect
import errno
import os
import tempfile
from collections.abc import Hashable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import torch

from quantd_server.errors import QuantdError


class _Spilled(msgspec.Struct, frozen=True):
    offset: int
    nbytes: int
    shape: torch.Size
    dtype: torch.dtype


class FreeSpace:
    """What is free of a file that grows at its end: first fit, neighbours joined.

    Of experts every input has another size, so that places of the right size are rare.
    """

    def __init__(self) -> None:
        self.end = 0
        """Size of the file."""
        self._starts: list[int] = []
        self._lengths: list[int] = []

    def take(self, nbytes: int) -> int:
        """A place for so many bytes."""
        for place, length in enumerate(self._lengths):
            if length >= nbytes:
                offset = self._starts[place]
                if length == nbytes:
                    del self._starts[place], self._lengths[place]
                else:
                    self._starts[place] += nbytes
                    self._lengths[place] -= nbytes
                return offset
        if self._starts and self._starts[-1] + self._lengths[-1] == self.end:
            offset = self._starts.pop()
            self._lengths.pop()
        else:
            offset = self.end
        self.end = offset + nbytes
        return offset

    def give(self, offset: int, nbytes: int) -> None:
        """Free again what was taken."""
        place = bisect.bisect(self._starts, offset)
        self._starts.insert(place, offset)
        self._lengths.insert(place, nbytes)
        for left in (place, place - 1):
            right = left + 1
            if left < 0 or right >= len(self._starts):
                continue
            if self._starts[left] + self._lengths[left] == self._starts[right]:
                self._lengths[left] += self._lengths[right]
                del self._starts[right], self._lengths[right]


class ActivationStore:
    """Tensors by key. What exceeds ``budget_bytes`` goes to one nameless file below ``folder``.

    The file has no name from the start, so that nothing is left over however the process ends.
    Tensors that are put must not be written to afterwards; on another device than the CPU they
    are copied.
    """

    def __init__(self, budget_bytes: int, folder: Path, device: torch.device | str = "cpu") -> None:
        self._budget = budget_bytes
        self._folder = folder
        self._device = torch.device(device)
        self._memory: dict[Hashable, torch.Tensor] = {}
        self._spilled: dict[Hashable, _Spilled] = {}
        self._space = FreeSpace()
        self._descriptor: int | None = None
        self.memory_bytes = 0
        """In memory now."""
        self.spilled_bytes = 0
        """Size of the file."""

    def put(self, key: Hashable, value: torch.Tensor) -> None:
        """Stores ``value``, replacing what was there. Raises QuantdError DISK_FULL."""
        self.drop(key)
        # In one layout, so that what is computed from it does not depend on where it was kept.
        held = value.cpu().contiguous()
        if self.memory_bytes + held.nbytes <= self._budget or not held.nbytes:
            if held.untyped_storage().nbytes() > held.nbytes:
                held = held.clone()  # A view would keep its whole base alive.
            self._memory[key] = held
            self.memory_bytes += held.nbytes
        else:
            self._spill(key, held)

    def get(self, key: Hashable) -> torch.Tensor:
        """What was put, bit for bit. Raises KeyError."""
        held = self._memory.get(key)
        if held is None:
            held = self._read(self._spilled[key])
        return held.to(self._device)

    def pop(self, key: Hashable) -> torch.Tensor:
        """As ``get``, and forgets it."""
        value = self.get(key)
        self.drop(key)
        return value

    def drop(self, key: Hashable) -> None:
        """Forgets ``key`` if it is there."""
        held = self._memory.pop(key, None)
        if held is not None:
            self.memory_bytes -= held.nbytes
        spilled = self._spilled.pop(key, None)
        if spilled is not None:
            self._space.give(spilled.offset, spilled.nbytes)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._memory or key in self._spilled

    def close(self) -> None:
        """Forgets everything."""
        self._memory.clear()
        self._spilled.clear()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _spill(self, key: Hashable, value: torch.Tensor) -> None:
        offset = self._space.take(value.nbytes)
        try:
            if self._descriptor is None:
                self._descriptor = _nameless_file(self._folder)
            data, position = _bytes(value), 0
            while position < len(data):
                position += os.pwrite(self._descriptor, data[position:], offset + position)
        except OSError as error:
            raise scratch_failed(error) from None
        self.spilled_bytes = max(self.spilled_bytes, offset + value.nbytes)
        self._spilled[key] = _Spilled(offset, value.nbytes, value.shape, value.dtype)

    def _read(self, spilled: _Spilled) -> torch.Tensor:
        value = torch.empty(spilled.shape, dtype=spilled.dtype)
        assert self._descriptor is not None
        data, position = _bytes(value), 0
        while position < len(data):
            got = os.preadv(self._descriptor, [data[position:]], spilled.offset + position)
            if got == 0:
                raise scratch_failed(OSError(errno.EIO, ""))
            position += got
        return value


def _nameless_file(folder: Path) -> int:
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".activations-")
    os.unlink(name)
    return descriptor


def _bytes(value: torch.Tensor) -> memoryview:
    return value.view(-1).view(torch.uint8).numpy().data


def scratch_failed(error: OSError) -> QuantdError:
    """What a job ends with whose activations cannot be kept, or read back."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return QuantdError(
            reason="DISK_FULL",
            message="the disk is too full for the activations of the calibration data",
            remedy="free space beside the output, allow more memory, or use fewer samples",
            kind="exhausted",
        )
    return QuantdError(
        reason="SCRATCH_FAILED",
        message=f"activations could not be kept on disk: {os.strerror(error.errno or 0)}",
        remedy="check the disk that holds the output",
        kind="unavailable",
    )
