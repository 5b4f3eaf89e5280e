"""A decoder block as a function of its parameters, beside what it returned before they were changed
(worker only: imports torch).

A method that tunes the block asks for the gradients of the squared difference, batch by batch, with
weights that it makes from its codes, and goes on with those that it likes best. A batch goes
through the block in pieces no larger than a micro-batch, so that memory does not grow with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import torch
from torch import nn
from torch.nn import functional

from quantd_server.calibration.activations import ActivationStore
from quantd_server.calibration.interception import Forward, forwards
from quantd_server.calibration.linears import Linear
from quantd_server.calibration.matrix_products import matrix_products_in_bf16
from quantd_server.calibration.model import BlockCall, BlockwiseModel

Values = Mapping[str, torch.Tensor]
"""Parameters by their names in the checkpoint: weights of linears as [out, in]."""


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """Sequences of one micro-batch."""

    micro_batch: int
    begin: int
    end: int


class OutputError(msgspec.Struct, frozen=True, kw_only=True):
    """Of a linear or of a block, summed up over all tokens."""

    squared_error: float
    """Squared difference from the original output."""
    energy: float
    """Squared original output; of a block, what it adds to its input."""


class TunableBlock:
    """A loaded block, all its inputs, and the outputs that it had with its original parameters.

    Args:
        model, index: The block; it has its original parameters.
        linears: Its linears by name.
        store: Holds ``("states", n)`` and ``("target", n)`` for each micro-batch.
        micro_batches: Token ids, [batch, length] each.
        dtype: In which the walk goes on, as ``Linear.multiply`` takes it; while tuning, products
            of float32 weights are rounded likewise.
        on_step: Called after each pass of a micro-batch.
        check_cancelled: Called between them; raises to end.
    """

    def __init__(
        self,
        model: BlockwiseModel,
        index: int,
        linears: Mapping[str, Linear],
        store: ActivationStore,
        micro_batches: Sequence[torch.Tensor],
        *,
        dtype: torch.dtype,
        on_step: Callable[[float], None],
        check_cancelled: Callable[[], None],
    ) -> None:
        self._model = model
        self._index = index
        self._block = model.blocks[index]
        self._linears = linears
        self._store = store
        self._micro_batches = micro_batches
        self._dtype = dtype
        self._on_step = on_step
        self._check_cancelled = check_cancelled
        self._calls: dict[tuple[int, int], BlockCall] = {}
        self._names = model.block_parameters(index)

    @property
    def parameters(self) -> Collection[str]:
        """Names of all its parameters."""
        return self._names.keys()

    def batches(self, size: int, generator: torch.Generator) -> Iterator[list[Piece]]:
        """All sequences once, ``size`` at a time, micro-batches in an order drawn at random."""
        batch: list[Piece] = []
        missing = size
        for number in torch.randperm(len(self._micro_batches), generator=generator).tolist():
            begin, length = 0, len(self._micro_batches[number])
            while begin < length:
                end = min(length, begin + missing)
                batch.append(Piece(micro_batch=number, begin=begin, end=end))
                missing -= end - begin
                begin = end
                if not missing:
                    yield batch
                    batch, missing = [], size
        if batch:
            yield batch

    def gradients(self, batch: Sequence[Piece], values: Values) -> dict[str, torch.Tensor]:
        """Of the squared difference of a batch's outputs from the original ones, by parameter.

        ``values``: what the block computes with; all linears' weights have to be among them that
        were replaced since.
        """
        with torch.inference_mode(False), torch.enable_grad(), self._with(values) as parameters:
            for piece in batch:
                states, target = self._piece(piece)
                call = self._call(len(states), states.shape[1])
                with matrix_products_in_bf16(enabled=self._dtype is torch.bfloat16):
                    found = self._model.states_of(call.run(self._block, states))
                    functional.mse_loss(found, target, reduction="sum").backward()
                del found
                self._on_step(3.0 * len(states) / len(self._micro_batches[piece.micro_batch]))
                self._check_cancelled()
            return {
                name: self._in_basis(name, parameter.grad)
                for name, parameter in parameters.items()
                if parameter.grad is not None
            }

    def error(self, values: Values) -> OutputError:
        """Of the block's output over all data."""
        error = energy = 0.0
        with torch.inference_mode(), self._with(values):
            for number in range(len(self._micro_batches)):
                states, target = self._piece(self._whole(number))
                call = self._call(*self._micro_batches[number].shape)
                with matrix_products_in_bf16(enabled=self._dtype is torch.bfloat16):
                    found = self._model.states_of(call.run(self._block, states))
                error += _squares(found.sub_(target))
                energy += _squares(target.sub_(states))
                self._on_step(1.0)
                self._check_cancelled()
        return OutputError(squared_error=error, energy=energy)

    @torch.inference_mode()
    def finish(self, values: Values) -> tuple[OutputError, dict[str, OutputError]]:
        """Goes on with ``values``: states become the outputs of the block that has them.

        Returns the errors of the block and, by parameter, of the outputs of the linears in it, on
        the inputs that they have there.
        """
        differences = self._replace(values)
        errors = dict.fromkeys(differences, 0.0)
        energies = dict.fromkeys(differences, 0.0)
        error = energy = 0.0

        def forward_of(name: str) -> Forward:
            linear, weight = self._linears[name], f"{name}.weight"

            def forward(value: torch.Tensor) -> torch.Tensor:
                output = linear.multiply(value, self._dtype)
                if weight in differences:
                    lost = functional.linear(value, differences[weight])
                    errors[weight] += _squares(lost)
                    whole = lost.add_(output)
                    bias = linear.module.bias
                    energies[weight] += _squares(whole if bias is None else whole.sub_(bias))
                return output

            return forward

        for number, tokens in enumerate(self._micro_batches):
            states, target = self._piece(self._whole(number))
            call = self._model.calls(*tokens.shape)[self._index]
            with forwards(self._modules(), forward_of):
                found = self._model.states_of(call.run(self._block, states))
            self._store.put(("states", number), found)
            self._store.drop(("target", number))
            energy += _squares(target - states)
            error += _squares(target.sub_(found))
            self._on_step(2.0)
            self._check_cancelled()
        return OutputError(squared_error=error, energy=energy), {
            name: OutputError(squared_error=errors[name], energy=energies[name]) for name in errors
        }

    def _replace(self, values: Values) -> dict[str, torch.Tensor]:
        """Gives the block its parameters; of weights, what the original ones have more."""
        differences = {}
        for name, value in values.items():
            linear = self._linears.get(name.removesuffix(".weight"))
            if linear is None:
                parameter = nn.Parameter(value.to(self._model.device), requires_grad=False)
                _put(self._block, self._names[name], parameter)
            else:
                original = self._model.parameters.read(name).to(value.device, torch.float32)
                differences[name] = self._in_basis(name, original) - value
                linear.replace(value, self._dtype)
        return differences

    def _modules(self) -> dict[str, nn.Module]:
        return {name: linear.module for name, linear in self._linears.items()}

    @contextmanager
    def _with(self, values: Values) -> Iterator[dict[str, nn.Parameter]]:
        """Within, the block computes with ``values``, of which gradients can be had."""
        before = {}
        parameters = {}
        for name, value in values.items():
            inner = self._names[name]
            before[inner] = self._block.get_parameter(inner)
            parameters[name] = nn.Parameter(self._in_basis(name, value).contiguous())
            _put(self._block, inner, parameters[name])
        others = {
            name: linear.module
            for name, linear in self._linears.items()
            if f"{name}.weight" not in values
        }
        try:
            with forwards(others, lambda name: self._float32_product(self._linears[name])):
                yield parameters
        finally:
            for inner, parameter in before.items():
                _put(self._block, inner, parameter)

    def _in_basis(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """From [out, in] to how the module has it, or the other way round: the same step."""
        linear = self._linears.get(name.removesuffix(".weight"))
        return value.T if linear is not None and linear.transposed else value

    @staticmethod
    def _float32_product(linear: Linear) -> Forward:
        """Weights that are not tuned are in the dtype in which they are stored."""

        def forward(value: torch.Tensor) -> torch.Tensor:
            return functional.linear(value, linear.weight(), linear.module.bias)

        return forward

    def _whole(self, number: int) -> Piece:
        return Piece(micro_batch=number, begin=0, end=len(self._micro_batches[number]))

    def _piece(self, piece: Piece) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and original outputs, copies of their own."""
        number, rows = piece.micro_batch, slice(piece.begin, piece.end)
        states = self._store.get(("states", number))[rows].clone()
        return states, self._store.get(("target", number))[rows].clone()

    def _call(self, batch: int, length: int) -> BlockCall:
        """For autograd: what ``BlockwiseModel.embed`` recorded is of inference mode."""
        if (batch, length) not in self._calls:
            if not self._model.has_calls(batch, length):
                self._model.embed(torch.zeros((batch, length), dtype=torch.long))
            call = self._model.calls(batch, length)[self._index]
            with torch.inference_mode(False):
                self._calls[batch, length] = BlockCall(_copied(call.args), _copied(call.kwargs))
        return self._calls[batch, length]


def original_outputs(
    model: BlockwiseModel,
    index: int,
    linears: Mapping[str, Linear],
    store: ActivationStore,
    micro_batches: Sequence[torch.Tensor],
    *,
    dtype: torch.dtype,
    on_step: Callable[[float], None],
    check_cancelled: Callable[[], None],
) -> None:
    """Stores what a loaded block returns with its own parameters, as ``("target", n)``."""

    def forward_of(name: str) -> Forward:
        return lambda value: linears[name].multiply(value, dtype)

    modules = {name: linear.module for name, linear in linears.items()}
    with torch.inference_mode(), forwards(modules, forward_of):
        for number, tokens in enumerate(micro_batches):
            check_cancelled()
            call = model.calls(*tokens.shape)[index]
            returned = call.run(model.blocks[index], store.get(("states", number)))
            store.put(("target", number), model.states_of(returned).float())
            on_step(1.0)
    for linear in linears.values():
        linear.release()


def _copied(value: Any) -> Any:
    """The same with copies of all tensors."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(map(_copied, value))
    return value


def _put(block: nn.Module, name: str, parameter: nn.Parameter) -> None:
    path, _, leaf = name.rpartition(".")
    setattr(block.get_submodule(path), leaf, parameter)


def _squares(value: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(value, dtype=torch.float64)) ** 2
