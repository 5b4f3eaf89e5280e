"""`quantization_config` of bitsandbytes: one form for both methods, told apart by two flags.

As ``BitsAndBytesConfig`` of transformers writes it: every field of both methods, at its default
where it does not apply. Canonical JSON has only those of the method.
"""

from __future__ import annotations

from quantd_server.methods.configs import Bitsandbytes4BitConfig, Bitsandbytes8BitConfig
from quantd_server.planning.config_parsing.rules import Boolean, Choice, Integer, Names, Number
from quantd_server.planning.config_parsing.table import (
    IDENTITY,
    OTHER_METHOD,
    Field,
    Ignored,
    MethodTable,
)

QUANT_METHOD = "bitsandbytes"
EIGHT_BIT_FLAGS = ("load_in_8bit", "_load_in_8bit")
FOUR_BIT_FLAGS = ("load_in_4bit", "_load_in_4bit")
FLAGS = EIGHT_BIT_FLAGS + FOUR_BIT_FLAGS

_COMPUTE_DTYPES = {"float32": "FLOAT32", "float16": "FLOAT16", "bfloat16": "BFLOAT16"}
_STORAGES = {
    "uint8": "UINT8",
    "int8": "INT8",
    "float16": "FLOAT16",
    "bfloat16": "BFLOAT16",
    "float32": "FLOAT32",
    "float64": "FLOAT64",
}


def _dtype(names: dict[str, str]) -> Choice:
    """A type by its name in PyTorch, with or without the module."""
    return Choice(names, {f"torch.{name}": domain for name, domain in names.items()})


_THRESHOLD = Number(minimum=0)
_SKIPPED = Field("llm_int8_skip_modules", Names())
_OFFLOAD = Field("llm_int8_enable_fp32_cpu_offload", Boolean())
_FLAGS = Ignored(FLAGS, IDENTITY, Boolean())

EIGHT_BIT = MethodTable(
    name="bitsandbytes_8bit",
    quant_method=QUANT_METHOD,
    config=Bitsandbytes8BitConfig,
    markers=(("load_in_8bit", True),),
    fields=(
        Field("llm_int8_threshold", _THRESHOLD),
        _SKIPPED,
        _OFFLOAD,
        # True saves unquantized weights without scales: no quantized checkpoint has it.
        Field("llm_int8_has_fp16_weight", Boolean(only=False)),
    ),
    ignored=(
        _FLAGS,
        # Written at their defaults beside 8 bits; any other value is a mistake about the method.
        Ignored(("bnb_4bit_quant_type",), OTHER_METHOD, Choice.of("fp4")),
        Ignored(("bnb_4bit_compute_dtype",), OTHER_METHOD, _dtype({"float32": "FLOAT32"})),
        Ignored(("bnb_4bit_quant_storage",), OTHER_METHOD, _dtype({"uint8": "UINT8"})),
        Ignored(("bnb_4bit_use_double_quant",), OTHER_METHOD, Boolean(only=False)),
    ),
)

FOUR_BIT = MethodTable(
    name="bitsandbytes_4bit",
    quant_method=QUANT_METHOD,
    config=Bitsandbytes4BitConfig,
    markers=(("load_in_4bit", True),),
    fields=(
        Field("bnb_4bit_quant_type", Choice({"fp4": "FP4", "nf4": "NF4"})),
        Field("bnb_4bit_compute_dtype", _dtype(_COMPUTE_DTYPES)),
        Field("bnb_4bit_use_double_quant", Boolean()),
        Field("bnb_4bit_quant_storage", _dtype(_STORAGES)),
        # transformers has no such field: readers find the size in each weight's quant_state.
        Field("blocksize", Integer(choices=(32, 64, 128, 256, 512, 1024, 2048, 4096))),
        _SKIPPED,
        _OFFLOAD,
    ),
    ignored=(
        _FLAGS,
        # transformers takes the two beside 4 bits, and they do nothing there.
        Ignored(("llm_int8_threshold",), OTHER_METHOD, _THRESHOLD),
        Ignored(("llm_int8_has_fp16_weight",), OTHER_METHOD, Boolean()),
    ),
)
