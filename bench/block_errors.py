"""How far the blocks of quantized models are from those of their source.

Each block is given the hidden states that it has in the source, so that it answers for itself only.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import torch

from quantd_server.calibration.model import BlockwiseModel
from quantd_server.calibration.parameters import CheckpointParameters, ParameterSource
from quantd_server.checkpoint.huggingface import HuggingFaceCheckpoint, open_huggingface
from quantd_server.checkpoint.output import Output
from quantd_server.checkpoint.reading import TensorReader
from quantd_server.engine.result_parameters import ResultParameters
from quantd_server.methods.base import WorkOptions
from quantd_server.methods.registry import BLOCKWISE_METHODS


class _Folder:
    """As much of an ``Output`` as is read of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, name: str) -> Path:
        """Of a file."""
        return self._folder / name


class Rounded:
    """A ``ParameterSource`` whose linear weights are rounded to nearest, with a zero point."""

    def __init__(self, source: ParameterSource, *, bits: int, group_size: int) -> None:
        self._source = source
        self._largest = 2**bits - 1
        self._group_size = group_size

    @property
    def names(self) -> Collection[str]:
        return self._source.names

    def shape(self, name: str) -> tuple[int, ...]:
        return self._source.shape(name)

    def read(self, name: str) -> torch.Tensor:
        value = self._source.read(name)
        if not name.endswith("_proj.weight"):
            return value
        groups = value.float().unflatten(1, (-1, self._group_size))
        low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
        step = ((high - low) / self._largest).clamp(min=1e-8)
        return (((groups - low) / step).round() * step + low).flatten(1)

    def read_rows(self, name: str, begin: int, end: int) -> torch.Tensor:
        return self._source.read_rows(name, begin, end)


def block_errors(
    source: Path, results: Sequence[tuple[str, dict[str, Any], Path]], tokens: torch.Tensor
) -> list[list[float]]:
    """For each result, then for plain rounding to 2 bits: a relative squared error a block,
    ``sum |y' - y|^2 / sum |y - x|^2`` where the source's block makes y of x.

    Args:
        source: The checkpoint.
        results: Method, configuration and folder of what was made of it.
        tokens: Token ids [sequences, length].
    """
    checkpoint = open_huggingface(source)
    with ExitStack() as stack:
        original = CheckpointParameters(checkpoint, stack.enter_context(TensorReader(source)))
        parameters = [_parameters(checkpoint, *result) for result in results]
        sources: list[ParameterSource] = [
            original,
            *parameters,
            Rounded(original, bits=2, group_size=64),
        ]
        models = [BlockwiseModel(checkpoint.config, source) for source in sources]
        return _compared(models, tokens)


def _parameters(
    checkpoint: HuggingFaceCheckpoint, name: str, config: dict[str, Any], folder: Path
) -> ResultParameters:
    import msgspec

    from quantd_server.methods.configs import MethodConfig

    method = BLOCKWISE_METHODS[name]
    resolved = method.resolve(msgspec.convert({name: config}, MethodConfig).value)
    work = method.prepare(resolved, checkpoint, WorkOptions())
    return ResultParameters(work, method, resolved, cast(Output, _Folder(folder)))


@torch.inference_mode()
def _compared(models: list[BlockwiseModel], tokens: torch.Tensor) -> list[list[float]]:
    original, *others = models
    errors: list[list[float]] = [[] for _ in others]
    batches = tokens.split(4)
    states = [original.embed(batch) for batch in batches]
    for model in others:
        for batch in batches:
            model.embed(batch)
    for index in range(len(original)):
        original.load_block(index, linear_dtype=torch.float32)
        outputs = [original.run_block(index, value) for value in states]
        original.free_block(index)
        energy = sum(map(_squares, outputs, states))
        for found, model in zip(errors, others, strict=True):
            model.load_block(index, linear_dtype=torch.float32)
            lost = sum(
                _squares(model.run_block(index, value), output)
                for value, output in zip(states, outputs, strict=True)
            )
            model.free_block(index)
            found.append(lost / energy)
        states = outputs
    return errors


def _squares(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left - right).square().sum(dtype=torch.float64))
