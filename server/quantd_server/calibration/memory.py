"""What a walk needs in memory, for the plan (pure: no torch)."""

from __future__ import annotations

from collections.abc import Mapping

from quantd_server.calibration.step_size import tokens_per_step

RUNTIME_BYTES = 700 << 20
"""torch and transformers, loaded and used; mapped libraries included."""

ACTIVATION_BYTES = 64 << 20
"""Activations that a job keeps in memory; the rest goes to disk. With four times as much a job was
not measurably faster: what was written lately is still in the system's cache."""

HEAD_SLICE_BYTES = 8 << 20
"""Of a slice of the output head in an evaluation, as float32."""

LOGIT_SLICE_BYTES = 8 << 20
"""Of the logits of one model at once, as float32."""

_LOGIT_COPIES = 8
"""Both models', their exponentials and differences, and what sums in float64 make of them."""

_FLOAT32 = 4
_TEMPORARIES = 8
"""Tensors as wide as the widest linear that a step holds at once, in units of float32: what goes
into and comes out of a product in both types, the activation function's, the allocator's rest."""

_TUNING_TEMPORARIES = 1
"""What is kept of what each linear sees and gives, until its gradient is known: norms, rotations,
attention and activation functions keep copies of their own, while linears share inputs."""


def walk_memory_bytes(
    *,
    linears: Mapping[str, tuple[int, int]],
    block_bytes: int,
    sequence_length: int,
    hidden: int,
    budget_bytes: int,
    surrounding_bytes: int = 0,
) -> int:
    """Peak resident memory of a walk, its caller's work not counted.

    Args:
        linears: Shapes [out, in] of the linears of the largest block, by name.
        block_bytes: Of the parameters of that block, as stored.
        sequence_length: Of the longest sequence, in tokens.
        hidden: Width of the hidden states.
        budget_bytes: Of the store of activations.
        surrounding_bytes: Parameters outside the blocks that are kept: neither the embedding nor
            the head.
    """
    tokens = max(sequence_length, tokens_per_step(linears))
    widest = max((max(shape) for shape in linears.values()), default=hidden)
    channels = max((columns for _, columns in linears.values()), default=hidden)
    largest = max((rows * columns for rows, columns in linears.values()), default=0)
    # The gram matrix and a panel of it; a weight in float32 that is handed out or multiplied.
    statistics = _FLOAT32 * channels**2 * 3 // 2
    weights = block_bytes + 2 * _FLOAT32 * largest
    step = _FLOAT32 * tokens * (widest * _TEMPORARIES + hidden * 4)
    return RUNTIME_BYTES + weights + statistics + step + budget_bytes + surrounding_bytes


def tuning_activation_bytes(
    *, linears: Mapping[str, tuple[int, int]], sequence_length: int, hidden: int
) -> int:
    """What a backward pass of a block needs to know of the forward pass.

    Arguments as for ``walk_memory_bytes``.
    """
    tokens = max(sequence_length, tokens_per_step(linears))
    width = sum(rows + columns for rows, columns in linears.values())
    return _FLOAT32 * tokens * (_TUNING_TEMPORARIES * width + 12 * hidden)


def evaluation_memory_bytes(
    *,
    linears: Mapping[str, tuple[int, int]],
    block_bytes: int,
    sequence_length: int,
    hidden: int,
    budget_bytes: int,
) -> int:
    """Peak resident memory of an evaluation; arguments as for ``walk_memory_bytes``.

    Of the block that is run all weights are in memory as readers of the result compute with them:
    in float32. No statistics are made.
    """
    weights = sum(rows * columns for rows, columns in linears.values())
    walk = walk_memory_bytes(
        linears=linears,
        block_bytes=block_bytes + _FLOAT32 * weights,
        sequence_length=sequence_length,
        hidden=hidden,
        budget_bytes=budget_bytes,
    )
    return walk + 4 * HEAD_SLICE_BYTES + _LOGIT_COPIES * LOGIT_SLICE_BYTES
