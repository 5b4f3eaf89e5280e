"""All methods of the API by the name of their field in `MethodConfig`.

Importing this is cheap: a method imports its kernels when a worker asks it for a quantizer.
"""

from __future__ import annotations

from collections.abc import Mapping

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

BLOCKWISE_METHODS: dict[str, BlockwiseMethod] = {
    method.name: method for method in (Gptq(), Awq(), Aqlm())
}
"""Those that run the model."""

ALL_METHODS: Mapping[str, Method] = {**METHODS, **BLOCKWISE_METHODS}
"""All of them."""
