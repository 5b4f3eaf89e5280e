"""`quantization_config` of an AWQ checkpoint: a fixed list of members."""

from __future__ import annotations

from typing import Any

from quantd_server import __version__
from quantd_server.methods.configs import AwqConfig


def awq_json(config: AwqConfig, not_converted: list[str]) -> dict[str, Any]:
    """For a resolved configuration; ``not_converted``: entries that name what stays as it is.

    Calibration data and paths have no place in it.
    """
    return {
        "quant_method": "awq",
        "bits": config.bits,
        "group_size": config.group_size,
        "zero_point": config.zero_point,
        "version": "gemm",
        "modules_to_not_convert": not_converted or None,
        "n_grid": config.n_grid,
        "duo_scaling": config.duo_scaling,
        "apply_clip": config.apply_clip,
        "max_shrink": config.max_shrink,
        "gptq_solver": config.gptq_solver,
        "meta": {"quantizer": [f"quantd:{__version__}"]},
    }
