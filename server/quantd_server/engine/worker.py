"""The worker process: ``python -m quantd_server.engine.worker``.

Protocol: one line of JSON on standard input, a ``WorkOrder``; then standard input stays open, and
its end means that the server is gone. Every line of standard output is a ``WorkerEvent``; the last
one is a ``QuantizationResult`` or a ``FailureEvent``. SIGTERM stops the job within a chunk of a
tensor. Exit status: 0 done, 1 failed, 2 stopped.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from typing import NoReturn

import msgspec

from quantd_server.engine.events import FailureEvent, WorkerEvent
from quantd_server.engine.pipeline import JobCancelled
from quantd_server.engine.run import JobRun
from quantd_server.engine.specification import WorkOrder
from quantd_server.errors import Finding, QuantdError, Severity


def main() -> int:
    """Do the job on standard input."""
    cancelled = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: cancelled.set())
    try:
        order = msgspec.json.decode(sys.stdin.buffer.readline(), type=WorkOrder)
        if order.spec.device not in ("CUDA", "ROCM"):
            # transformers imports it where it is installed: 70 MB that only a GPU has a use for.
            sys.modules["triton"] = None  # type: ignore[assignment] # as if it were not
        threading.Thread(target=_watch_server, args=(cancelled,), daemon=True).start()
        JobRun(order, _emit, cancelled).run()
    except JobCancelled:
        return 2
    except QuantdError as error:
        _emit(FailureEvent(finding=error.finding))
        return 1
    except MemoryError:
        _emit(FailureEvent(finding=_out_of_memory()))
        return 1
    except Exception as error:  # noqa: BLE001 - the last resort: the server has to hear of it
        traceback.print_exc()  # to the server's log; the client learns no more than this
        finding = _out_of_memory() if _is_out_of_memory(error) else _internal()
        _emit(FailureEvent(finding=finding))
        return 1
    return 0


def _is_out_of_memory(error: Exception) -> bool:
    """Whether torch, which has no one class for it, could not allocate."""
    texts = ("can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError" or any(text in str(error) for text in texts)
    )


def _emit(event: WorkerEvent) -> None:
    # With the server gone nobody listens, and the end of standard input stops the job.
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
        sys.stdout.buffer.flush()


def _watch_server(cancelled: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    cancelled.set()


def _out_of_memory() -> Finding:
    return Finding(
        severity=Severity.ERROR,
        field="",
        reason="OUT_OF_MEMORY",
        message="the worker could not allocate memory",
        remedy="use fewer threads, or free some memory",
        kind="exhausted",
    )


def _internal() -> Finding:
    return Finding(
        severity=Severity.ERROR,
        field="",
        reason="INTERNAL",
        message="internal error",
        remedy="look up the job in the server's log",
        kind="internal",
    )


def leave(status: int) -> NoReturn:
    """End the process without waiting for its threads.

    One of them may be inside a long product or factorization. The interpreter would wait for it,
    or take its libraries away from under it.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    leave(main())
