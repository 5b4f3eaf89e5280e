"""What a method that calibrates is to the engine.

The engine walks the decoder blocks. It hands over the linears of a block stage by stage (a stage's
linears do not depend on each other), with what is known of their inputs; the method answers with
the weights that readers will compute with, so that the walk goes on with them. When a block is
done, the method gives the contents of the block's tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from quantd_server.errors import Finding
from quantd_server.methods.base import Method, TensorTask

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from quantd_server.checkpoint.opening import Checkpoint


class InputStatistics(Protocol):
    """What calibration knows of the input of linears with K columns."""

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
    """Linears that share one input."""

    @property
    def names(self) -> tuple[str, ...]:
        """Their modules."""
        ...

    def statistics(self) -> InputStatistics:
        """Of their input; computed anew at every call."""
        ...


class Stage(Protocol):
    """Linears of a block that do not depend on each other."""

    @property
    def groups(self) -> Sequence[LinearGroup]: ...

    def weight(self, name: str) -> torch.Tensor:
        """The weight of a linear, a new tensor float32 [out, in]."""
        ...


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
    """The same with what the format allows for but no look at the inputs: plain rounding to the
    same kind of grid or, for AQLM, the k-means that its solver begins with."""
    warnings: tuple[Finding, ...] = ()


class OutputError(Protocol):
    """Of a linear or of a block, summed up over all tokens."""

    @property
    def squared_error(self) -> float:
        """Squared difference from the original output."""
        ...

    @property
    def energy(self) -> float:
        """Squared original output; of a block, what it adds to its input."""
        ...


Values = Mapping[str, "torch.Tensor"]
"""Parameters of a block by the names of their source tensors, float32; weights as [out, in]."""


class TunableBlock(Protocol):
    """A block whose linears are solved, all its inputs, and the outputs that it had before."""

    @property
    def parameters(self) -> Collection[str]:
        """Names of all its parameters."""
        ...

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Any]:
        """All sequences once, ``size`` at a time, in an order drawn at random."""
        ...

    def gradients(self, batch: Any, values: Values) -> dict[str, torch.Tensor]:
        """Of the squared difference of a batch's outputs from the original ones.

        ``values``: what the block computes with; those of all quantized weights are among them.
        """
        ...

    def error(self, values: Values) -> OutputError:
        """Of the block's outputs."""
        ...

    def finish(self, values: Values) -> tuple[OutputError, Mapping[str, OutputError]]:
        """Goes on with ``values``, to be called once.

        Returns the error of the block and those of its linears, on the inputs that they have in
        it, by the names of their weights.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class TunedLinear:
    """What a linear's errors are after its block was tuned; see ``QuantizedLinear``."""

    squared_error: float
    output_error: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TunedBlock:
    """What tuning made of a block."""

    linears: Mapping[str, TunedLinear]
    """By the names of their weights."""
    untuned_error: float
    """sqrt(sum |y' - y|^2 / sum |y - x|^2) over the calibration tokens: y is what the original
    block returns for x, y' what it returned before it was tuned."""
    error: float
    """The same of what is written."""


Contents = Sequence["npt.NDArray[np.generic]"]
"""One contiguous array for each part of a task."""


class BlockQuantizer(Protocol):
    """Quantizes the linears of one decoder block, in the order in which data flows."""

    def quantize(self, stage: Stage) -> Iterator[QuantizedLinear]:
        """Solve the linears of a stage."""
        ...

    def finish(self) -> Iterator[tuple[TensorTask, Contents]]:
        """The contents of the block's tensors, when all its stages have been solved."""
        ...


@runtime_checkable
class TuningQuantizer(BlockQuantizer, Protocol):
    """One that also tunes the block, between its stages and its contents."""

    def tune(self, block: TunableBlock) -> TunedBlock:
        """Tune what the stages were solved to. Ends with the block's ``finish``."""
        ...


Read = Callable[[TensorTask], "torch.Tensor"]
"""The source tensor of a task, in the dtype in which it is stored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobContext:
    """What a method has to know of the job that it works for."""

    threads: int
    """That compute."""
    seed: int
    """Of everything that is chosen at random."""
    check_cancelled: Callable[[], None]
    """Raises when the job shall stop; to be called in the middle of what takes seconds."""


MakeQuantizer = Callable[[Sequence[TensorTask], Read], BlockQuantizer]
"""From the QUANTIZE and RESCALE tasks of a block to its quantizer."""


class BlockwiseMethod(Method, Protocol):
    """A method that needs to see what goes through a model."""

    def sequential(self, config: Any) -> bool:
        """Whether later linears of a block see the errors of earlier ones."""
        ...

    def tuning_epochs(self, config: Any) -> int:
        """Most passes over the data in which a solved block is tuned, by what is then a
        ``TuningQuantizer``; 0 if it is not.
        """
        ...

    def block_quantizers(
        self, config: Any, checkpoint: Checkpoint, context: JobContext
    ) -> MakeQuantizer:
        """What makes the quantizer of each block (worker only)."""
        ...

    def dequantize(self, config: Any, task: TensorTask, contents: Contents) -> torch.Tensor:
        """The weight float32 [out, in] that readers compute with, from the parts of a task."""
        ...
