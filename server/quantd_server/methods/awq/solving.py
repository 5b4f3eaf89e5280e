"""AWQ in a worker: the settings of each linear, and the packed tensors (worker only)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from quantd_server.checkpoint.huggingface import HuggingFaceCheckpoint
from quantd_server.kernels.awq import packing
from quantd_server.kernels.gptq.column_order import ColumnOrder
from quantd_server.methods.base import TensorTask
from quantd_server.methods.block_solver import BlockSettings, BlockSolver
from quantd_server.methods.blockwise import Contents, MakeQuantizer, Read
from quantd_server.methods.channel_scales import ScaleSettings
from quantd_server.methods.configs import AwqConfig
from quantd_server.methods.linear_solver import GptqSettings, LinearSettings, QuantizedWeight
from quantd_server.methods.scale_folding import foldings_by_block

SOLVER = GptqSettings(
    order=ColumnOrder.ACTIVATION_IN_GROUPS,
    static_groups=True,
    damp_percent=0.05,
    damp_auto_increment=0.01,
    block_size=128,
)
"""The defaults of GptqConfig. The format has no ``g_idx``, so that groups stay where they are."""


def block_quantizers(
    config: AwqConfig, checkpoint: HuggingFaceCheckpoint, threads: int
) -> MakeQuantizer:
    """As ``methods.blockwise.BlockwiseMethod`` has it."""
    assert config.bits and config.group_size and config.n_grid
    linear = LinearSettings(
        bits=config.bits,
        group_size=config.group_size,
        sym=False,
        max_shrink=config.max_shrink if config.apply_clip else None,
        gptq=SOLVER if config.gptq_solver else None,
    )
    scales = ScaleSettings(n_grid=config.n_grid, duo_scaling=config.duo_scaling)
    folds = foldings_by_block(checkpoint)

    def make(tasks: Sequence[TensorTask], read: Read) -> BlockSolver:
        modules = [
            task.source.name.removesuffix(".weight")
            for task in tasks
            if task.action == "QUANTIZE" and task.source
        ]
        block = tasks[0].block if tasks else None
        return BlockSolver(
            BlockSettings(
                linears=dict.fromkeys(modules, linear),
                foldings=folds.get(block, ()) if block is not None else (),
                scales=scales,
            ),
            tasks,
            read,
            lambda _, weight: pack(weight),
            threads=threads,
        )

    return make


def pack(weight: QuantizedWeight) -> Contents:
    """The parts of ``awq.method.packed_tensors``."""
    return packing.pack(
        weight.codes.cpu().numpy(), weight.scales.cpu().numpy(), weight.zeros.cpu().numpy()
    )


def dequantize(task: TensorTask, contents: Contents) -> torch.Tensor:
    """The weight float32 [out, in] that readers compute with."""
    parts: Iterator[Any] = (
        np.asarray(data).reshape(part.shape)
        for data, part in zip(contents, task.parts, strict=True)
    )
    codes = packing.unpack(packing.PackedWeight(*parts))
    columns, groups = codes.codes.shape[1], codes.scales.shape[1]
    return QuantizedWeight(
        codes=torch.from_numpy(codes.codes),
        scales=torch.from_numpy(codes.scales),
        zeros=torch.from_numpy(codes.zeros),
        g_idx=torch.arange(columns, dtype=torch.int32) // (columns // groups),
    ).dequantize()
