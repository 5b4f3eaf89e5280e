"""NVIDIA's management library, as far as we ask it.

The driver brings it, so it says what a card is without a CUDA context and without a package; the
Python binding would cost the server 16 MB. Names and layouts are those of nvml.h, whose functions
keep their ABI.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator
from typing import Any

LIBRARY = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
NAME_BYTES = 96  # NVML_DEVICE_NAME_V2_BUFFER_SIZE
VERSION_BYTES = 80  # NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE


class NvmlError(Exception):
    """A function answered something else than NVML_SUCCESS."""


class MemoryInfo(ctypes.Structure):
    """nvmlMemory_t, in bytes."""

    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


def load_library() -> Any:
    """The library. Raises OSError where there is no NVIDIA driver."""
    return ctypes.CDLL(LIBRARY)


class Nvml:
    """An initialised library; every method raises NvmlError when the driver refuses."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def driver_version(self) -> str:
        """Version of the driver, such as "580.95.05"."""
        text = ctypes.create_string_buffer(VERSION_BYTES)
        self._call("nvmlSystemGetDriverVersion", text, ctypes.c_uint(VERSION_BYTES))
        return text.value.decode("utf-8", "replace")

    def device_count(self) -> int:
        """How many cards there are."""
        count = ctypes.c_uint()
        self._call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        return count.value

    def device(self, index: int) -> ctypes.c_void_p:
        """Handle of a card."""
        handle = ctypes.c_void_p()
        self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
        return handle

    def name(self, device: ctypes.c_void_p) -> str:
        """Name of the product."""
        text = ctypes.create_string_buffer(NAME_BYTES)
        self._call("nvmlDeviceGetName", device, text, ctypes.c_uint(NAME_BYTES))
        return text.value.decode("utf-8", "replace")

    def memory(self, device: ctypes.c_void_p) -> MemoryInfo:
        """Memory of a card."""
        info = MemoryInfo()
        self._call("nvmlDeviceGetMemoryInfo", device, ctypes.byref(info))
        return info

    def compute_capability(self, device: ctypes.c_void_p) -> tuple[int, int]:
        """CUDA compute capability, (9, 0) for an H100."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call(
            "nvmlDeviceGetCudaComputeCapability", device, ctypes.byref(major), ctypes.byref(minor)
        )
        return major.value, minor.value

    def _call(self, function: str, *arguments: Any) -> None:
        code = getattr(self._library, function)(*arguments)
        if code != 0:
            raise NvmlError(f"{function} answered {code}")


@contextlib.contextmanager
def session(load: Callable[[], Any] = load_library) -> Iterator[Nvml | None]:
    """The library between init and shutdown; None where there is no driver that answers."""
    try:
        library = load()
        initialised = library.nvmlInit_v2() == 0
    except (OSError, AttributeError):
        initialised = False
    if not initialised:
        yield None
        return
    try:
        yield Nvml(library)
    finally:
        library.nvmlShutdown()
