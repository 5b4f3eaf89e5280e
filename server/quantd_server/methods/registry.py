"""All methods of the API by the name of their field in `MethodConfig`.

Importing this is cheap: a method imports its kernels when a worker asks it for a quantizer.
"""

from __future__ import annotations

from quantd_server.errors import Finding, Severity
from quantd_server.methods.base import TensorwiseMethod
from quantd_server.methods.bitsandbytes import Bitsandbytes4Bit, Bitsandbytes8Bit
from quantd_server.methods.gguf import Gguf

METHODS: dict[str, TensorwiseMethod] = {
    method.name: method for method in (Bitsandbytes8Bit(), Bitsandbytes4Bit(), Gguf())
}
"""Those that this version runs."""


def not_implemented(name: str) -> Finding:
    """Says that this version of the server does not quantize with the method ``name``."""
    return Finding(
        severity=Severity.ERROR,
        field=f"spec.method.{name}",
        reason="NOT_IMPLEMENTED",
        message=f"this version of quantd does not quantize with {name}; "
        f"it does with {', '.join(METHODS)}",
        remedy="choose one of those methods, or a newer server",
        kind="unimplemented",
    )


UNAVAILABLE: dict[str, Finding] = {name: not_implemented(name) for name in ("gptq", "awq", "aqlm")}
"""Methods of the API that this server lists but cannot run, with the reason."""
