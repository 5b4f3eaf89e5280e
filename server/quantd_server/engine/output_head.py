"""The output head as the last stage of a walk (worker only: imports torch)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from quantd_server.calibration.model import BlockwiseModel
from quantd_server.calibration.statistics import InputStatistics, input_statistics
from quantd_server.calibration.walk import BlockWalk


class OutputHead:
    """The only linear of its stage: ``methods.blockwise.Stage`` and its group in one."""

    def __init__(self, model: BlockwiseModel, walk: BlockWalk) -> None:
        self._model = model
        self._walk = walk
        self._name = model.head_name()

    @property
    def names(self) -> tuple[str, ...]:
        return (self._name.removesuffix(".weight"),)

    @property
    def groups(self) -> tuple[OutputHead]:
        return (self,)

    def stages(self) -> Iterator[OutputHead]:
        """The one stage, once the walk is at its end."""
        yield self

    def weight(self, name: str) -> torch.Tensor:
        """float32 [vocabulary, hidden]."""
        return self._model.parameters.read(f"{name}.weight").to(self._model.device, torch.float32)

    def replace(self, name: str, weight: torch.Tensor) -> None:
        """Nothing comes after it."""

    def statistics(self) -> InputStatistics:
        """Of the final hidden states, as the head sees them."""
        return input_statistics(
            map(self._model.head_input, self._walk.all_states()),
            self._model.parameters.shape(self._name)[1],
            device=self._model.device,
            bf16_products=False,
            after_product=lambda: None,
        )
