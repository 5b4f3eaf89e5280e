"""What transformers makes of a ``config.json`` (worker only: imports torch, transformers)."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from quantd_server.errors import QuantdError, quoted

_log = logging.getLogger(__name__)


def model_on_meta_device(config: Mapping[str, Any]) -> Any:
    """The model of a ``config.json``, ready to compute but without a single parameter.

    Raises QuantdError ARCHITECTURE_NOT_SUPPORTED.
    """
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    model_type = str(config.get("model_type", ""))
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    if model_type not in CONFIG_MAPPING:
        raise architecture_not_supported(model_type, "transformers does not know it")
    reason = ""
    for attention in ("sdpa", "eager"):
        try:
            parsed = CONFIG_MAPPING[model_type].from_dict(plain)
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(
                    parsed, attn_implementation=attention, dtype=torch.float32
                )
        except ValueError as error:
            reason = re.split(r"[.:\n]", str(error))[0]
        except Exception as error:  # noqa: BLE001 - classes of its own for each odd field
            _log.warning("transformers does not make a model of config.json", exc_info=True)
            reason = f"transformers answers its config.json with {type(error).__name__}"
        else:
            return model.eval().requires_grad_(False)
    raise architecture_not_supported(model_type, reason)


def decoder_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The decoder blocks: of the outermost lists of modules, the one with most parameters.

    Returns its name and itself. Raises QuantdError ARCHITECTURE_NOT_SUPPORTED.
    """
    lists = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)
    }
    outermost = {
        name: module
        for name, module in lists.items()
        if not any(name.startswith(f"{other}.") for other in lists)
    }
    if not outermost:
        raise architecture_not_supported(type(model).__name__, "it has no list of decoder blocks")
    return max(
        outermost.items(), key=lambda item: sum(value.numel() for value in item[1].parameters())
    )


def architecture_not_supported(model_type: str, fault: str) -> QuantdError:
    """The error for a model that the walk cannot run."""
    return QuantdError(
        reason="ARCHITECTURE_NOT_SUPPORTED",
        message=f"a model of type {quoted(model_type)} cannot be calibrated: {fault}",
        remedy="use a method without calibration, such as gguf or bitsandbytes",
        field="spec.source_uri",
        kind="precondition",
    )
