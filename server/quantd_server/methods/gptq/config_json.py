"""`quantization_config` of a GPTQ checkpoint, as GPTQModel writes it: a fixed list of members."""

from __future__ import annotations

from typing import Any

from quantd_server import __version__
from quantd_server.methods.configs import GptqConfig
from quantd_server.methods.gptq.dynamic_json import dynamic_json

CONFIG_FILE = "quantize_config.json"
"""The same object beside config.json, where older readers look for it."""


def gptq_json(config: GptqConfig, *, output_head: bool) -> dict[str, Any]:
    """For a resolved configuration; ``output_head``: whether the head is quantized.

    Calibration data, tokenizers and paths have no place in it.
    """
    storage = str(config.format).lower()
    dynamic = {"dynamic": dynamic_json(config.dynamic)} if config.dynamic else {}
    return {
        "quant_method": "gptq",
        "method": "gptq",
        "bits": config.bits,
        "group_size": config.group_size,
        "desc_act": config.desc_act,
        "sym": config.sym,
        "lm_head": output_head,
        "format": storage,
        "checkpoint_format": storage,
        "pack_dtype": "int32",
        "true_sequential": config.true_sequential,
        **dynamic,
        "meta": {
            "quantizer": [f"quantd:{__version__}"],
            "damp_percent": config.damp_percent,
            "damp_auto_increment": config.damp_auto_increment,
            "static_groups": config.static_groups,
            "true_sequential": config.true_sequential,
            "mse": config.mse,
            "act_group_aware": config.act_group_aware,
            "block_size": config.block_size,
            "awq_scaling": config.awq_scaling,
            "max_shrink": config.max_shrink,
        },
    }
