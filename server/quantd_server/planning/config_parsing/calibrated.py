"""What the configurations of GPTQ and AWQ carry besides their settings.

transformers makes ``AwqConfig`` a kind of ``GPTQConfig`` and writes the fields of both; AutoGPTQ,
GPTQModel and optimum add their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quantd_server.planning.config_parsing.rules import (
    Anything,
    Boolean,
    Choice,
    Integer,
    ValueRefusedError,
    wrong_type,
)
from quantd_server.planning.config_parsing.table import (
    CALIBRATION,
    PROVENANCE,
    READER,
    WRITER,
    Ignored,
)

NAMED_DATASETS = ("wikitext2", "c4", "c4-new")


@dataclass(frozen=True)
class Dataset:
    """Texts to calibrate with, token lists of them, or the name of a data set."""

    allowed: str = f"a list of texts that is not empty, or one of {', '.join(NAMED_DATASETS)}"

    def read(self, value: Any) -> None:
        if isinstance(value, str):
            if value not in NAMED_DATASETS:
                raise ValueRefusedError(
                    "CONFIG_VALUE_NOT_ALLOWED", f"another name; allowed: {self.allowed}"
                )
        elif not isinstance(value, list):
            raise wrong_type(value, self.allowed)
        elif not value:
            raise ValueRefusedError(
                "CONFIG_VALUE_NOT_ALLOWED", f"an empty list; allowed: {self.allowed}"
            )
        else:
            for index, item in enumerate(value):
                if not isinstance(item, str):
                    raise wrong_type(item, "a text", f"[{index}]")


@dataclass(frozen=True)
class Object:
    """An object with any members."""

    allowed: str = "an object"

    def read(self, value: Any) -> None:
        if not isinstance(value, dict):
            raise wrong_type(value, self.allowed)


_LENGTH = Integer(minimum=1, maximum=2**31 - 1)

SHARED = (
    Ignored(("dataset",), CALIBRATION, Dataset()),
    Ignored(("tokenizer",), CALIBRATION),
    Ignored(("batch_size",), WRITER, Integer(minimum=1, maximum=2**31 - 1)),
    Ignored(("model_seqlen", "max_input_length"), WRITER, _LENGTH),
    Ignored(("pad_token_id",), WRITER, Integer(minimum=-1, maximum=2**31 - 1)),
    Ignored(("cache_block_outputs",), WRITER, Boolean()),
    Ignored(("block_name_to_quantize", "module_name_preceding_first_block"), WRITER),
    Ignored(
        ("modules_in_block_to_quantize",),
        "only the modules it lists are quantized",
        Anything(),
        matters=True,
    ),
    Ignored(("meta",), PROVENANCE, Object()),
    Ignored(("quantizer", "uri", "model_name_or_path", "model_file_base_name"), PROVENANCE),
    Ignored(
        (
            "offload_to_disk",
            "offload_to_disk_path",
            "auto_forward_data_parallelism",
            "device",
            "exllama_config",
            "failsafe",
            "failsafe_with_rtn",
            "fallback",
            "foem",
            "gc_mode",
            "gptaq",
            "hessian",
            "moe",
            "parallel_packing",
            "preprocessors",
            "process",
            "rotation",
            "v2",
            "vram_strategy",
            "wait_for_submodule_finalizers",
        ),
        WRITER,
    ),
    Ignored(
        ("disable_exllama", "use_exllama", "use_cuda_fp16", "use_marlin", "fuse_max_seq_len"),
        READER,
    ),
    Ignored(("do_fuse", "modules_to_fuse", "exllama_version"), READER),
    # Codes are packed into 32-bit words by every writer whose checkpoints engines read.
    Ignored(("pack_dtype",), "the only packing that is read", Choice.of("int32")),
)


def backend(*names: str) -> Ignored:
    """The kernel that a reader asked for."""
    return Ignored(("backend",), READER, Choice.of(*names))
