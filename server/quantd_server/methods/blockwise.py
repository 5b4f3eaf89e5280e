"""What a method that calibrates is to the engine.

The engine walks the decoder blocks. For each group of linears that share an input it hands over
their weights and what is known of the input; the method answers with the weights that readers will
compute with, so that the walk goes on with them. When a block is done, the method gives the
contents of the block's tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from quantd_server.errors import Finding
from quantd_server.methods.base import Method, TensorTask

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch


class InputStatistics(Protocol):
    """What calibration knows of the input of a group of linears with K columns."""

    @property
    def gram(self) -> torch.Tensor:
        """float32 [K, K]: the sum of x xᵀ over the tokens."""
        ...

    @property
    def mean_abs(self) -> torch.Tensor:
        """float32 [K]: the mean of |x|."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens that were seen."""
        ...


class LinearGroup(Protocol):
    """Linears that share one input. Names are those of modules."""

    @property
    def weights(self) -> Mapping[str, torch.Tensor]:
        """float32 [out, in] by name."""
        ...

    @property
    def statistics(self) -> InputStatistics: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizedLinear:
    """A linear that has been solved."""

    task: TensorTask
    weight: torch.Tensor
    """float32 [out, in]: what readers will compute with, scales of the input included."""
    squared_error: float
    """Sum of (w - w')^2."""
    squared_sum: float
    """Sum of w^2."""
    output_error: float
    """sqrt(sum |(W - W') x|^2 / sum |W x|^2) over the calibration tokens."""
    rounding_output_error: float
    """The same with plain rounding to the same kind of grid."""
    warnings: tuple[Finding, ...] = ()


Contents = Sequence["npt.NDArray[np.generic]"]
"""One contiguous array for each part of a task."""


class BlockQuantizer(Protocol):
    """Quantizes the linears of one decoder block, in the order in which data flows."""

    def quantize(self, group: LinearGroup) -> list[QuantizedLinear]:
        """Solve the linears of a group."""
        ...

    def finish(self) -> Iterator[tuple[TensorTask, Contents]]:
        """The contents of the block's tensors, when all its groups have been solved."""
        ...


class BlockwiseMethod(Method, Protocol):
    """A method that needs to see what goes through a model. All of this is for workers only."""

    def block_quantizer(
        self,
        config: Any,
        tasks: Sequence[TensorTask],
        read: Callable[[TensorTask], torch.Tensor],
        *,
        device: str,
        threads: int,
    ) -> BlockQuantizer:
        """The quantizer of a block whose QUANTIZE and RESCALE tasks are ``tasks``.

        ``read`` gives the source tensor of a task in float32.
        """
        ...

    def dequantize(self, config: Any, task: TensorTask, contents: Contents) -> torch.Tensor:
        """The weight float32 [out, in] that readers compute with, from the parts of a task."""
        ...
