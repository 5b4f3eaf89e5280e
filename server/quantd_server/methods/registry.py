"""All methods of the API by the name of their field in `MethodConfig`.

Importing this is cheap: a method imports its kernels when a worker asks it for a quantizer.
"""

from __future__ import annotations

from collections.abc import Mapping

from quantd_server.errors import Finding, Severity
from quantd_server.methods.aqlm import Aqlm
from quantd_server.methods.awq import Awq
from quantd_server.methods.base import Method, TensorwiseMethod
from quantd_server.methods.bitsandbytes import Bitsandbytes4Bit, Bitsandbytes8Bit
from quantd_server.methods.blockwise import BlockwiseMethod
from quantd_server.methods.gguf import Gguf
from quantd_server.methods.gptq import Gptq

METHODS: dict[str, TensorwiseMethod] = {
    method.name: method for method in (Bitsandbytes8Bit(), Bitsandbytes4Bit(), Gguf())
}
"""Those that go tensor by tensor."""

BLOCKWISE_METHODS: dict[str, BlockwiseMethod] = {method.name: method for method in (Gptq(), Awq())}
"""Those that run the model."""

RUNNABLE: Mapping[str, Method] = {**METHODS, **BLOCKWISE_METHODS}
"""All that this version runs."""

PLANNED_ONLY: dict[str, Method] = {method.name: method for method in (Aqlm(),)}
"""Those that this version plans, but does not run."""

PLANNABLE: Mapping[str, Method] = {**RUNNABLE, **PLANNED_ONLY}
"""All of them."""


def not_implemented(name: str) -> Finding:
    """Says that this version of the server does not quantize with the method ``name``."""
    return Finding(
        severity=Severity.ERROR,
        field=f"spec.method.{name}",
        reason="NOT_IMPLEMENTED",
        message=f"this version of quantd does not quantize with {name}; "
        f"it does with {', '.join(RUNNABLE)}",
        remedy="choose one of those methods, or a newer server",
        kind="unimplemented",
    )


UNAVAILABLE: dict[str, Finding] = {name: not_implemented(name) for name in PLANNED_ONLY}
"""Why those that are planned only cannot run."""
