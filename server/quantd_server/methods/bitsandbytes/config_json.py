"""`quantization_config` of a bitsandbytes checkpoint, as transformers writes it."""

from __future__ import annotations

from typing import Any

from quantd_server.methods.configs import Bitsandbytes4BitConfig, Bitsandbytes8BitConfig


def eight_bit_json(config: Bitsandbytes8BitConfig) -> dict[str, Any]:
    """For a resolved 8-bit configuration."""
    return _shared(eight_bit=True, config=config) | {
        "llm_int8_threshold": config.llm_int8_threshold,
        "llm_int8_has_fp16_weight": config.llm_int8_has_fp16_weight,
        "bnb_4bit_quant_type": "fp4",
        "bnb_4bit_use_double_quant": False,
        "bnb_4bit_compute_dtype": "float32",
        "bnb_4bit_quant_storage": "uint8",
    }


def four_bit_json(config: Bitsandbytes4BitConfig) -> dict[str, Any]:
    """For a resolved 4-bit configuration. The block size is in each weight's quant_state."""
    return _shared(eight_bit=False, config=config) | {
        "llm_int8_threshold": 6.0,
        "llm_int8_has_fp16_weight": False,
        "bnb_4bit_quant_type": str(config.bnb_4bit_quant_type).lower(),
        "bnb_4bit_use_double_quant": config.bnb_4bit_use_double_quant,
        "bnb_4bit_compute_dtype": str(config.bnb_4bit_compute_dtype).lower(),
        "bnb_4bit_quant_storage": str(config.bnb_4bit_quant_storage).lower(),
    }


def _shared(
    *, eight_bit: bool, config: Bitsandbytes8BitConfig | Bitsandbytes4BitConfig
) -> dict[str, Any]:
    return {
        "quant_method": "bitsandbytes",
        "_load_in_8bit": eight_bit,
        "_load_in_4bit": not eight_bit,
        "load_in_8bit": eight_bit,
        "load_in_4bit": not eight_bit,
        "llm_int8_skip_modules": list(config.llm_int8_skip_modules) or None,
        "llm_int8_enable_fp32_cpu_offload": config.llm_int8_enable_fp32_cpu_offload,
    }
