"""`quantization_config` of an AQLM checkpoint: a fixed list of members."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from quantd_server.methods.configs import AqlmConfig


def aqlm_json(config: AqlmConfig, kept: Iterable[str]) -> dict[str, Any]:
    """For a resolved configuration; ``kept``: linear layers that are not quantized.

    Each is named twice: up to transformers 4 an entry was the name of a parameter
    ("lm_head.weight"), since 5 it is matched with the name of its module ("lm_head").
    """
    modules = list(kept)
    return {
        "quant_method": "aqlm",
        "in_group_size": config.in_group_size,
        "out_group_size": config.out_group_size,
        "num_codebooks": config.num_codebooks,
        "nbits_per_codebook": config.nbits_per_codebook,
        "linear_weights_not_to_quantize": [
            *(f"{module}.weight" for module in modules),
            *modules,
        ],
        "relative_mse_tolerance": config.relative_mse_tolerance,
        "max_epochs": config.max_epochs,
        "steps_per_epoch": config.steps_per_epoch,
        "lr": config.lr,
        "beam_size": config.beam_size,
        "init_max_iter": config.init_max_iter,
        "init_max_points_per_centroid": config.init_max_points_per_centroid,
        "finetune_max_epochs": config.finetune_max_epochs,
        "finetune_lr": config.finetune_lr,
        "finetune_batch_size": config.finetune_batch_size,
        "finetune_early_stop": config.finetune_early_stop,
    }
