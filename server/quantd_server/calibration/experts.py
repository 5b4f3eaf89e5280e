"""Experts as separate linears (worker only: imports torch).

transformers 5 keeps the experts of a block in two three-dimensional parameters; published
checkpoints, and every calibrated format, keep one linear a projection. The modules here take the
place of the fused ones, under the names of the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import torch
from torch import nn


class ExpertNames(msgspec.Struct, frozen=True):
    """How a family's checkpoints name what transformers names otherwise."""

    gate: str
    up: str
    down: str
    module: str = "mlp"
    """The module of a block that routes, which transformers names ``mlp``."""


EXPERT_NAMES = {
    "mixtral": ExpertNames("w1", "w3", "w2", module="block_sparse_moe"),
    "qwen2_moe": ExpertNames("gate_proj", "up_proj", "down_proj"),
    "qwen3_moe": ExpertNames("gate_proj", "up_proj", "down_proj"),
}
"""By model_type: the families whose fused experts can be taken apart."""


class Expert(nn.Module):
    """down(act(gate(x)) · up(x)), its linears named as in the checkpoint."""

    def __init__(
        self,
        names: ExpertNames,
        hidden: int,
        intermediate: int,
        activation: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        super().__init__()
        self.names = names
        self.activation = activation
        self.add_module(names.gate, nn.Linear(hidden, intermediate, bias=False))
        self.add_module(names.up, nn.Linear(hidden, intermediate, bias=False))
        self.add_module(names.down, nn.Linear(intermediate, hidden, bias=False))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        gate, up, down = (
            self.get_submodule(name) for name in (self.names.gate, self.names.up, self.names.down)
        )
        # The very same tensor for both: that is how they are known to share their statistics.
        return down(self.activation(gate(states)) * up(states))


class Experts(nn.ModuleList):
    """Takes the place of ``MixtralExperts`` and ``Qwen3MoeExperts``: same call, same result."""

    def __init__(self, fused: Any, names: ExpertNames) -> None:
        count, hidden, intermediate = fused.down_proj.shape
        super().__init__(Expert(names, hidden, intermediate, fused.act_fn) for _ in range(count))

    def forward(
        self, states: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Weighted sum of what the chosen experts say.

        ``states`` [tokens, hidden]; ``chosen`` [tokens, k], numbers of experts, and their
        ``weights`` [tokens, k].
        """
        total = torch.zeros_like(states)
        for number in chosen.unique().tolist():
            token, rank = torch.where(chosen == number)
            said = self[number](states[token])
            total.index_add_(0, token, (said * weights[token, rank, None]).to(total.dtype))
        return total


def take_experts_apart(block: nn.Module, names: ExpertNames) -> None:
    """Replaces every fused experts module of a decoder block on the meta device."""
    for name, module in list(block.named_modules()):
        down = getattr(module, "down_proj", None)
        if isinstance(down, nn.Parameter) and down.dim() == 3:
            with torch.device("meta"):
                block.set_submodule(name, Experts(module, names))
