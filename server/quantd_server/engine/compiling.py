"""Kernels are compiled before the first weight is read, and not in the worker itself.

numba compiles a kernel on its first call, which takes seconds, and working memory that is never
given back: more than quantizing takes. So a job does its samples first (``needed_kernels``). When
that needs a kernel that is not in the cache, a process of its own does the same and leaves what it
compiled there: ``python -m quantd_server.engine.compiling``, one line of JSON on standard input,
whose end means that the worker is gone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import msgspec

from quantd_server.checkpoint.reading import StoredTensor
from quantd_server.engine.chunks import Chunk, ChunkWorker
from quantd_server.engine.needed_kernels import cache_folder, mark_compiled
from quantd_server.engine.pipeline import JobCancelled
from quantd_server.engine.resident_memory import current_bytes, largest_bytes
from quantd_server.kernels.compilation import NotCompiledError, only_compiled_kernels
from quantd_server.methods.base import TensorTask
from quantd_server.methods.configs import MethodConfig
from quantd_server.methods.registry import METHODS

POLL_SECONDS = 0.05


class CompileOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What the compiling process is told."""

    method: MethodConfig
    device: str
    samples: tuple[TensorTask, ...]


def prepare_kernels(order: CompileOrder, cancelled: threading.Event) -> int:
    """Have every kernel loaded that the samples need.

    Returns the resident bytes of both processes together while kernels were compiled, 0 when
    nothing was. Raises JobCancelled.
    """
    peak = 0
    try:
        with only_compiled_kernels():
            _do_samples(order, cancelled)
    except NotCompiledError:
        if cache_folder() is not None:
            peak = current_bytes() + _compile_apart(order, cancelled)
        _do_samples(order, cancelled)  # and compile here what could not be kept
    mark_compiled(order.samples, order.device)
    return peak


def _do_samples(order: CompileOrder, cancelled: threading.Event) -> None:
    for sample in order.samples:
        if cancelled.is_set():
            raise JobCancelled
        worker = ChunkWorker(_Zeros(), _Nowhere(), allow_non_finite=False)
        chunk = Chunk(0, sample.element_count)
        if sample.action == "KEEP":
            worker.copy(sample, chunk)
            continue
        method = METHODS[order.method.name]
        quantizer = method.quantizer(order.method.value, sample, order.device)
        worker.quantize(sample, chunk, quantizer)
        worker.write(sample, quantizer.finish().writes)


class _Zeros:
    """A source all of whose weights are zero."""

    def read_into(self, entry: StoredTensor, byte_offset: int, buffer: memoryview) -> None:
        buffer[:] = bytes(len(buffer))


class _Nowhere:
    """An output that nobody keeps."""

    def write_at(self, name: str, offset: int, data: bytes | bytearray | memoryview) -> None:
        pass


def _compile_apart(order: CompileOrder, cancelled: threading.Event) -> int:
    """Run the compiling process; its largest resident bytes. Raises JobCancelled."""
    process = subprocess.Popen(
        [sys.executable, "-m", "quantd_server.engine.compiling"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,  # ours is the protocol with the server
    )
    assert process.stdin is not None
    try:
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        process.stdin.flush()
        while True:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                process.returncode = os.waitstatus_to_exitcode(status)
                return largest_bytes(usage)
            if cancelled.wait(POLL_SECONDS):
                raise JobCancelled
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()
        process.stdin.close()


def main() -> None:
    """Do the samples on standard input."""
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=CompileOrder)
    threading.Thread(target=_end_with_worker, daemon=True).start()
    _do_samples(order, threading.Event())


def _end_with_worker() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
