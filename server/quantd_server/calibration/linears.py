"""A linear layer of a block under its checkpoint name (worker only: imports torch)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from quantd_server.calibration.matrix_products import matrix_products_in_bf16


def is_linear(module: nn.Module) -> bool:
    """An ``nn.Linear`` or the transposed linear of the GPT-2 family."""
    return isinstance(module, nn.Linear) or _is_transposed(module)


def _is_transposed(module: nn.Module) -> bool:
    """Whether its weight is [in, out]: transformers' ``Conv1D``."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


class Linear:
    """A linear module; its weights are [out, in] here, however they are stored."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name = name
        """In the checkpoint, without ``.weight``."""
        self.module: Any = module
        self.transposed = _is_transposed(module)
        """Whether the module has its weight as [in, out]."""
        self._factor: torch.Tensor | None = None
        """The weight as it is multiplied, [out, in], while that goes on."""

    @property
    def shape(self) -> tuple[int, int]:
        """Output and input channels."""
        first, second = self.module.weight.shape
        return (second, first) if self.transposed else (first, second)

    def weight(self) -> torch.Tensor:
        """A new float32 tensor [out, in]."""
        weight = self.module.weight.detach().to(torch.float32, copy=True)
        return weight.T.contiguous() if self.transposed else weight

    def replace(self, weight: torch.Tensor, dtype: torch.dtype) -> None:
        """Takes ``weight`` [out, in], on the block's device, rounded to ``dtype`` from now on."""
        if tuple(weight.shape) != self.shape:
            raise ValueError(
                f"{self.name} has a weight of shape {self.shape}, not {tuple(weight.shape)}"
            )
        value = weight.T if self.transposed else weight
        value = value.to(dtype, copy=True)
        self.module.weight = nn.Parameter(value, requires_grad=False)
        self._factor = None

    def multiply(self, value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Output, float32, for an input [..., in]; both factors are rounded to ``dtype``."""
        if self._factor is None:
            weight = self.module.weight.to(dtype)
            self._factor = weight.T.contiguous() if self.transposed else weight
        with matrix_products_in_bf16(enabled=dtype is torch.bfloat16):
            output = functional.linear(value.to(dtype), self._factor).float()
        bias = self.module.bias
        return output if bias is None else output.add_(bias)

    def release(self) -> None:
        """Forgets the form of the weight that is multiplied."""
        self._factor = None

    def finish(self) -> None:
        """Forgets the weight: what it gives is computed and stored."""
        self.release()
        weight = self.module.weight
        self.module.weight = nn.Parameter(weight.to("meta"), requires_grad=False)
