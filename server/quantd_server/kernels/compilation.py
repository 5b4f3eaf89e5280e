"""How every kernel is compiled (numba, worker only).

No fast-math: nothing is reordered or fused, so results are equal to the last bit to the C code
that the kernels follow. Types are inferred on the first call, and the machine code is kept on disk
for the next process (in ``__pycache__``, or where ``NUMBA_CACHE_DIR`` says). Kernels take
C-contiguous arrays, compute with the GIL released, and trust their caller, which checks the
arguments.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numba
from numba.core import event
from numba.core.caching import FunctionCache

from quantd_server.kernels.sources import digest_of_sources

Function = TypeVar("Function", bound=Callable[..., Any])


class _Cache(FunctionCache):
    """numba's cache, but valid for one state of this package only.

    numba looks at the kernel's own file. A kernel also contains the machine code of the inner
    kernels that it calls, which live in other files and change with an upgrade as well.
    """

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), digest_of_sources())


def _compile(function: Callable[..., Any], **options: Any) -> Any:
    dispatcher: Any = numba.njit(nogil=True, error_model="numpy", **options)(function)
    # Without a writable place for a cache, every process compiles.
    with contextlib.suppress(RuntimeError):
        dispatcher._cache = _Cache(function)  # noqa: SLF001
    return dispatcher


def kernel(function: Function) -> Function:
    """Compile a kernel that Python calls."""
    compiled: Function = _compile(function)
    return compiled


def inner_kernel(function: Function) -> Function:
    """Compile a kernel that only kernels call: no entry point for Python, less to compile."""
    compiled: Function = _compile(function, no_cpython_wrapper=True)
    return compiled


def inlined_kernel(function: Function) -> Function:
    """A kernel that becomes part of every kernel that calls it, before types are inferred."""
    compiled: Function = _compile(function, inline="always")
    return compiled


class NotCompiledError(Exception):
    """A kernel was called that is not in the cache."""


class _Refusal(event.Listener):
    def on_start(self, event: Any) -> None:
        raise NotCompiledError

    def on_end(self, event: Any) -> None:
        pass


@contextlib.contextmanager
def only_compiled_kernels() -> Iterator[None]:
    """Inside, calling a kernel that would have to be compiled raises NotCompiledError."""
    with event.install_listener("numba:compile", _Refusal()):
        yield
