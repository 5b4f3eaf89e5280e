"""GPTQ in a worker: the settings of each linear, and the packed tensors (worker only)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from quantd_server.checkpoint.huggingface import HuggingFaceCheckpoint
from quantd_server.kernels.gptq import packing
from quantd_server.kernels.gptq.column_order import ColumnOrder
from quantd_server.methods.base import TensorTask
from quantd_server.methods.block_solver import BlockSettings, BlockSolver
from quantd_server.methods.blockwise import Contents, MakeQuantizer, Read
from quantd_server.methods.channel_scales import ScaleSettings
from quantd_server.methods.configs import GptqConfig
from quantd_server.methods.gptq.module_settings import ModuleRules, ModuleSettings
from quantd_server.methods.linear_solver import GptqSettings, LinearSettings, QuantizedWeight
from quantd_server.methods.scale_folding import foldings_by_block

AWQ_SCALES = ScaleSettings(n_grid=20, duo_scaling=None)
"""The defaults of AwqConfig."""


def block_quantizers(
    config: GptqConfig, checkpoint: HuggingFaceCheckpoint, threads: int
) -> MakeQuantizer:
    """As ``methods.blockwise.BlockwiseMethod`` has it."""
    rules = ModuleRules(config)
    folds = foldings_by_block(checkpoint) if config.awq_scaling else {}

    def make(tasks: Sequence[TensorTask], read: Read) -> BlockSolver:
        modules = {module_of(task): task for task in tasks if task.action == "QUANTIZE"}
        settings = {module: settings_of(rules, module) for module in modules}
        block = tasks[0].block if tasks else None
        return BlockSolver(
            BlockSettings(
                linears={name: _linear(config, found) for name, found in settings.items()},
                foldings=folds.get(block, ()) if block is not None else (),
                scales=AWQ_SCALES if config.awq_scaling else None,
            ),
            tasks,
            read,
            lambda task, weight: pack(config, settings[module_of(task)], weight),
            threads=threads,
        )

    return make


def pack(config: GptqConfig, settings: ModuleSettings, weight: QuantizedWeight) -> Contents:
    """The parts of ``gptq.method.packed_tensors``."""
    return packing.pack(
        weight.codes.cpu().numpy(),
        weight.scales.cpu().numpy(),
        weight.zeros.cpu().numpy(),
        weight.g_idx.cpu().numpy(),
        bits=settings.bits,
        v2=config.format == "GPTQ_V2",
    )


def dequantize(config: GptqConfig, task: TensorTask, contents: Contents) -> torch.Tensor:
    """The weight float32 [out, in] that readers compute with."""
    settings = settings_of(ModuleRules(config), module_of(task))
    parts: Iterator[Any] = (
        np.asarray(data).reshape(part.shape)
        for data, part in zip(contents, task.parts, strict=True)
    )
    codes = packing.unpack(
        packing.PackedWeight(*parts), bits=settings.bits, v2=config.format == "GPTQ_V2"
    )
    return QuantizedWeight(
        codes=torch.from_numpy(codes.codes),
        scales=torch.from_numpy(codes.scales),
        zeros=torch.from_numpy(codes.zeros),
        g_idx=torch.from_numpy(codes.g_idx),
    ).dequantize()


def module_of(task: TensorTask) -> str:
    """The module whose weight the task quantizes."""
    assert task.source is not None
    return task.source.name.removesuffix(".weight")


def settings_of(rules: ModuleRules, module: str) -> ModuleSettings:
    """The settings of a module that the plan quantizes."""
    settings = rules[module]
    assert isinstance(settings, ModuleSettings)
    return settings


def _linear(config: GptqConfig, settings: ModuleSettings) -> LinearSettings:
    # A rule that asks for activation order in one module asks for its permuted groups.
    static = bool(config.static_groups) and not (settings.desc_act and not config.desc_act)
    order = ColumnOrder.NATURAL
    if settings.desc_act:
        order = ColumnOrder.ACTIVATION
    elif settings.act_group_aware or (static and settings.group_size == -1):
        order = ColumnOrder.ACTIVATION_IN_GROUPS
    assert config.damp_percent is not None and config.damp_auto_increment is not None
    assert config.block_size is not None
    return LinearSettings(
        bits=settings.bits,
        group_size=settings.group_size,
        sym=settings.sym,
        mse=config.mse or 0.0,
        max_shrink=(config.max_shrink or None) if static else None,
        gptq=GptqSettings(
            order=order,
            static_groups=static,
            damp_percent=config.damp_percent,
            damp_auto_increment=config.damp_auto_increment,
            block_size=config.block_size,
        ),
    )
