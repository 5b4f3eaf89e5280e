"""A language model of which one decoder block at a time is in memory (worker only: torch,
transformers).

The architecture is transformers' own; nothing here knows its inside. What surrounds the blocks
(embedding, position embeddings, masks, final norm, head) is run by the model's own forward, whose
blocks are replaced by functions that record what they are called with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn

from quantd_server.calibration.architecture import (
    architecture_not_supported,
    decoder_blocks,
    model_on_meta_device,
)
from quantd_server.calibration.embedding_rows import embedding_rows
from quantd_server.calibration.experts import EXPERT_NAMES, take_experts_apart
from quantd_server.calibration.interception import Forward, forwards
from quantd_server.calibration.linears import Linear, is_linear
from quantd_server.calibration.parameters import ParameterSource
from quantd_server.errors import quoted

OTHER_HEADS = ("embed_out.weight",)
"""What checkpoints call the output head that transformers renames when it loads them."""

FORWARD_ERRORS = (AttributeError, IndexError, KeyError, NotImplementedError, TypeError, ValueError)
"""What a model's forward raises of a configuration that it does not work with."""


class BlockCall:
    """What a block is called with beside the hidden states: masks, position embeddings."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args = args
        self.kwargs = kwargs

    def run(self, block: nn.Module, states: torch.Tensor) -> Any:
        """What ``block`` returns for hidden states [batch, length, hidden]."""
        return block(states, *self.args, **self.kwargs)


def alike(left: Any, right: Any) -> bool:
    """Whether two arguments are the same, tensors by their values."""
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and torch.equal(left, right)
    if isinstance(left, BlockCall):
        return alike((left.args, left.kwargs), (right.args, right.kwargs))
    if isinstance(left, Mapping):
        return left.keys() == right.keys() and all(alike(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(alike, left, right))
    return True  # objects that hold no tensors that we know of


class _Stop(Exception):
    """Leaves a forward pass whose rest is of no interest."""


class BlockwiseModel:
    """A causal language model whose parameters are read block by block and forgotten again.

    Args:
        config: Content of the checkpoint's ``config.json``.
        parameters: Where to read from.
        device: Where blocks are computed, e.g. ``cpu`` or ``cuda:0``.

    Raises QuantdError ARCHITECTURE_NOT_SUPPORTED when transformers does not implement the
    architecture or when its parameters are not those of the checkpoint.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        parameters: ParameterSource,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self.parameters = parameters
        self.device = torch.device(device)
        self.model_type = str(config.get("model_type", ""))
        self._model = model_on_meta_device(config)
        self._experts = EXPERT_NAMES.get(self.model_type)
        self.block_prefix, blocks = decoder_blocks(self._model)
        self.blocks: list[nn.Module] = list(blocks)
        if self._experts is not None:
            for block in self.blocks:
                take_experts_apart(block, self._experts)
        self._embedding: Any = self._model.get_input_embeddings()
        self._head: Any = self._model.get_output_embeddings()
        if self._embedding is None or self._head is None:
            raise architecture_not_supported(self.model_type, "it has no embedding or no head")
        self._module_names = {module: name for name, module in self._model.named_modules()}
        self._meta = dict(self._model.named_parameters(remove_duplicate=False))
        self._stored_buffers = {
            name: value
            for name, value in self._model.state_dict().items()
            if name not in self._meta and self._find_stored(name) is not None
        }
        """Buffers that the checkpoint holds, as they are on the meta device."""
        self._check_names()
        self._compute_buffers()
        self._load_surroundings()
        self._calls: dict[tuple[int, int], list[BlockCall]] = {}
        self.returns_tuple = False

    def __len__(self) -> int:
        """Number of decoder blocks."""
        return len(self.blocks)

    # Names

    def checkpoint_name(self, name: str) -> str:
        """The checkpoint's name of a module or parameter of the transformers model."""
        if self._experts is not None and name.startswith(self.block_prefix):
            name = name.replace(".mlp.", f".{self._experts.module}.", 1)
        return name

    def linears(self, index: int) -> dict[str, Linear]:
        """The linear layers of a block by their checkpoint names (without ``.weight``)."""
        found = (
            Linear(
                self._stored_name(f"{self.block_prefix}.{index}.{name}.weight").removesuffix(
                    ".weight"
                ),
                module,
            )
            for name, module in self.blocks[index].named_modules()
            if is_linear(module)
        )
        return {linear.name: linear for linear in found}

    def block_parameters(self, index: int) -> dict[str, str]:
        """The parameters of a block: names within it by their checkpoint names."""
        return {
            self._stored_name(f"{self.block_prefix}.{index}.{name}"): name
            for name, _ in self.blocks[index].named_parameters()
        }

    # Parameters

    def load_block(self, index: int, *, linear_dtype: torch.dtype | None = None) -> None:
        """Reads the parameters of a block, as float32.

        ``linear_dtype``: dtype of the weights of linear layers; None leaves them as stored.
        """
        block = self.blocks[index]
        weights = {f"{name}.weight" for name, module in block.named_modules() if is_linear(module)}
        for name, _ in list(block.named_parameters()):
            dtype = linear_dtype if name in weights else torch.float32
            full = f"{self.block_prefix}.{index}.{name}"
            value = self.parameters.read(self._stored_name(full))
            _set_parameter(block, name, value.to(self.device, dtype))
        self._load_buffers(f"{self.block_prefix}.{index}.")

    def free_block(self, index: int) -> None:
        """Forgets the parameters of a block."""
        block = self.blocks[index]
        for name, _ in list(block.named_parameters()):
            _put(block, name, self._meta[f"{self.block_prefix}.{index}.{name}"])

    # Forward

    @torch.inference_mode()
    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Hidden states [batch, length, hidden] float32 before the first block.

        ``tokens``: ids [batch, length]. Also prepares ``calls`` for this shape.
        """
        distinct, renumbered = tokens.unique(return_inverse=True)
        with self._embedding_of(distinct):
            return self._record(renumbered.to(self.device))

    def calls(self, batch: int, length: int) -> list[BlockCall]:
        """How each block is called for this shape; ``embed`` saw one of it before."""
        return self._calls[batch, length]

    def has_calls(self, batch: int, length: int) -> bool:
        """Whether ``embed`` saw this shape."""
        return (batch, length) in self._calls

    def run_block(self, index: int, states: torch.Tensor) -> torch.Tensor:
        """Hidden states after a loaded block, from those before it: [batch, length, hidden]."""
        batch, length, _ = states.shape
        return self.states_of(self.calls(batch, length)[index].run(self.blocks[index], states))

    def states_of(self, returned: Any) -> torch.Tensor:
        """The hidden states in what a block returned."""
        self.returns_tuple = isinstance(returned, tuple)
        return returned[0] if self.returns_tuple else returned

    def head_name(self) -> str:
        """Checkpoint name of the output head's weight: the embedding's when they are tied."""
        head = f"{self._module_names[self._head]}.weight"
        if self._tied():
            return self._stored_name(f"{self._module_names[self._embedding]}.weight")
        return self._stored_name(head)

    def _tied(self) -> bool:
        """Whether the output head is the embedding."""
        return bool(getattr(self._model.config.get_text_config(), "tie_word_embeddings", False))

    @torch.inference_mode()
    def head_input(self, states: torch.Tensor) -> torch.Tensor:
        """What the head sees of the hidden states after the last block: the same shape, float32."""
        batch, length, _ = states.shape
        tokens = torch.zeros((batch, length), dtype=torch.long, device=self.device)
        seen: list[torch.Tensor] = []

        def record(value: torch.Tensor) -> torch.Tensor:
            seen.append(value)
            raise _Stop

        with (
            self._embedding_of(torch.zeros(1, dtype=torch.long)),
            self._blocks_as(self._skip_to(states)),
            forwards({"head": self._head}, lambda _: record),
            suppress(_Stop),
        ):
            self._model(input_ids=tokens, use_cache=False)
        return seen[0].float()

    @torch.inference_mode()
    def logits(self, states: torch.Tensor, begin: int, head: torch.Tensor) -> torch.Tensor:
        """Logits of a slice of the vocabulary, [batch, length, rows] float32.

        ``states``: after the last block; ``head``: rows of the head's weight from ``begin`` on,
        float32. Final norm, scaling and soft caps are the model's own.
        """
        batch, length, _ = states.shape
        bias = self._head.bias
        tokens = torch.zeros((batch, length), dtype=torch.long, device=self.device)
        own_rows = self._head.weight
        _set_parameter(self._head, "weight", head)
        if bias is not None:
            _set_parameter(self._head, "bias", bias[begin : begin + len(head)])
        try:
            with (
                self._embedding_of(torch.zeros(1, dtype=torch.long)),
                self._blocks_as(self._skip_to(states)),
            ):
                return self._model(input_ids=tokens, use_cache=False).logits.float()
        finally:
            self._head.weight = own_rows
            if bias is not None:
                self._head.bias = bias

    # Inside

    def _record(self, tokens: torch.Tensor) -> torch.Tensor:
        batch, length = tokens.shape
        calls: list[BlockCall] = []
        first: list[torch.Tensor] = []

        def recorder(index: int) -> Forward:
            def record(states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
                if not first:
                    first.append(states)
                elif states.shape != first[0].shape:
                    # The model took element 0 of what the block returned.
                    self.returns_tuple = True
                    raise _Stop
                calls.append(BlockCall(args, kwargs))
                if index == len(self.blocks) - 1:
                    raise _Stop
                return (first[0],) if self.returns_tuple else first[0]

            return record

        for _ in range(2):  # Once more when the first attempt found that blocks return tuples.
            calls.clear()
            first.clear()
            try:
                with self._blocks_as(recorder), suppress(_Stop):
                    self._model(input_ids=tokens, use_cache=False)
            except FORWARD_ERRORS as error:
                raise architecture_not_supported(
                    self.model_type, f"its forward ends in {type(error).__name__}"
                ) from error
            if len(calls) == len(self.blocks):
                break
        else:
            raise architecture_not_supported(
                self.model_type, "its forward does not call its blocks in turn"
            )
        if first[0].dim() != 3:
            raise architecture_not_supported(self.model_type, "its states are not 3-dimensional")
        # Blocks are called again later, when other tokens may have been recorded.
        if not alike(self._calls.setdefault((batch, length), calls), calls):
            raise architecture_not_supported(
                self.model_type, "its blocks are given more than the states that depends on tokens"
            )
        return first[0].float()

    def _skip_to(self, states: torch.Tensor) -> Callable[[int], Forward]:
        result = (states,) if self.returns_tuple else states
        return lambda _index: lambda *_args, **_kwargs: result

    @contextmanager
    def _blocks_as(self, forward_of: Callable[[int], Forward]) -> Iterator[None]:
        """Within, calling block i calls ``forward_of(i)``."""
        for index, block in enumerate(self.blocks):
            block.forward = forward_of(index)
        try:
            yield
        finally:
            for block in self.blocks:
                del block.forward

    @contextmanager
    def _embedding_of(self, distinct: torch.Tensor) -> Iterator[None]:
        """Within, token i of the model is token ``distinct[i]`` (sorted) of the vocabulary.

        So that of the embedding only rows that occur are in memory.
        """
        name = f"{self._module_names[self._embedding]}.weight"
        rows = embedding_rows(self.parameters, self._stored_name(name), distinct)
        padding = getattr(self._embedding, "padding_idx", None)
        self._embedding.padding_idx = None
        _set_parameter(self._embedding, "weight", rows.to(self.device))
        try:
            yield
        finally:
            self._embedding.weight = self._meta[name]
            self._embedding.padding_idx = padding

    def _surroundings(self) -> Iterator[str]:
        """Names of parameters outside the blocks, but for the embedding and the head's weight."""
        apart = {f"{self._module_names[module]}.weight" for module in (self._embedding, self._head)}
        for name in self._meta:
            if not name.startswith(f"{self.block_prefix}.") and name not in apart:
                yield name

    def _load_surroundings(self) -> None:
        for name in self._surroundings():
            value = self.parameters.read(self._stored_name(name))
            _set_parameter(self._model, name, value.to(self.device, torch.float32))
        for name in self._stored_buffers:
            if not name.startswith(f"{self.block_prefix}."):
                self._load_buffers(name)

    def _load_buffers(self, prefix: str) -> None:
        for name, like in self._stored_buffers.items():
            if name.startswith(prefix):
                value = self.parameters.read(self._stored_name(name))
                _put(self._model, name, value.to(self.device, like.dtype))

    def _compute_buffers(self) -> None:
        """Position frequencies and the like, which no checkpoint holds.

        transformers itself computes them in ``_init_weights`` after a load on the meta device.
        What neither gives is an error: NaN shows it.
        """
        for module in self._model.modules():
            missing = [name for name, value in module.named_buffers(recurse=False) if value.is_meta]
            for name in missing:
                like = getattr(module, name)
                unset = torch.nan if like.is_floating_point() else 0
                setattr(module, name, torch.full_like(like, unset, device=self.device))
            if missing:
                with torch.no_grad():
                    self._model._init_weights(module)  # noqa: SLF001 - its only place
        for name, value in self._model.named_buffers():
            if name not in self._stored_buffers and bool(value.isnan().any()):
                raise architecture_not_supported(
                    self.model_type, f"nothing says what its buffer {quoted(name)} holds"
                )

    def _check_names(self) -> None:
        """Every parameter but a tied head must be in the checkpoint, in the same shape."""
        head = f"{self._module_names[self._head]}.weight"
        tied = self._tied()
        for name, parameter in self._meta.items():
            stored = self._find_stored(name)
            if stored is None:
                if name == head and tied:
                    continue
                raise architecture_not_supported(
                    self.model_type, f"the checkpoint has no {quoted(self.checkpoint_name(name))}"
                )
            shape = self.parameters.shape(stored)
            if shape != tuple(parameter.shape) and not (name == head and tied):
                raise architecture_not_supported(
                    self.model_type,
                    f"{quoted(stored)} has shape {list(shape)}, but from config.json follows "
                    f"{list(parameter.shape)}",
                )

    def _find_stored(self, name: str) -> str | None:
        """Checkpoints saved from the base model alone lack its prefix."""
        full = self.checkpoint_name(name)
        names = [full, full.removeprefix(f"{self._model.base_model_prefix}.")]
        if name == f"{self._module_names[self._head]}.weight":
            names += OTHER_HEADS
        return next((found for found in names if found in self.parameters.names), None)

    def _stored_name(self, name: str) -> str:
        return self._find_stored(name) or self.checkpoint_name(name)


def _set_parameter(module: nn.Module, name: str, value: torch.Tensor) -> None:
    _put(module, name, nn.Parameter(value, requires_grad=False))


def _put(module: nn.Module, name: str, value: torch.Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(path), leaf, value)
