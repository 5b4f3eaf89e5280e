"""How every kernel here is compiled.

No fast-math: nothing is reordered or fused, so results are equal to the last bit to the C code
that the kernels follow. Types are inferred on the first call, and the machine code is kept on disk
for the next process (in ``__pycache__``, or where ``NUMBA_CACHE_DIR`` says). Kernels take
C-contiguous arrays, compute with the GIL released, and trust their caller: arguments are checked
in :mod:`.conversion`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core.caching import FunctionCache

Function = TypeVar("Function", bound=Callable[..., Any])


def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_SOURCES = _digest_of_sources()


class _Cache(FunctionCache):
    """numba's cache, but valid for one state of this package only.

    numba looks at the kernel's own file. A kernel also contains the machine code of the inner
    kernels that it calls, which live in other files and change with an upgrade as well.
    """

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), _SOURCES)


def _compile(function: Callable[..., Any], **options: bool) -> Any:
    dispatcher: Any = numba.njit(nogil=True, error_model="numpy", **options)(function)  # type: ignore[call-overload]
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
