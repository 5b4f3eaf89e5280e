"""In which order GPTQ rounds the columns of a weight, on torch tensors. Used by workers only.

Columns rounded late make up for errors of the early ones, so columns with large activations,
where errors cost most, are better rounded early.
"""

from __future__ import annotations

import enum

import torch


class ColumnOrder(enum.Enum):
    NATURAL = "natural"

    # By decreasing activation. Groups are formed in that order, so readers need `g_idx`.
    ACTIVATION = "activation"

    # By decreasing activation inside each group, and groups by their largest one ("GAR" in
    # GPTQModel): nearly as good, and groups stay contiguous for readers.
    ACTIVATION_IN_GROUPS = "activation_in_groups"


def column_order(order: ColumnOrder, activation: torch.Tensor, group_size: int) -> torch.Tensor:
    """The columns in the order in which they are rounded, int64 [columns].

    Args:
        activation: float32 [columns], the diagonal of the second moment.
        group_size: columns of a group, a divisor of their number.
    """
    if order is ColumnOrder.NATURAL:
        return torch.arange(activation.shape[0], device=activation.device)
    if order is ColumnOrder.ACTIVATION:
        return torch.argsort(activation, descending=True, stable=True)
    in_groups = activation.unflatten(0, (-1, group_size))
    inside = torch.argsort(in_groups, dim=1, descending=True, stable=True)
    among = torch.argsort(in_groups.amax(dim=1), descending=True, stable=True)
    starts = torch.arange(in_groups.shape[0], device=activation.device)[:, None] * group_size
    return (inside + starts)[among].flatten()
