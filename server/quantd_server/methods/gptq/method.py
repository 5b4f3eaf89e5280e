"""The plan of a GPTQ checkpoint: packed codes, zero points, scales and group indices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from quantd_server.checkpoint.layout import TensorRole
from quantd_server.checkpoint.opening import Checkpoint
from quantd_server.checkpoint.safetensors_layout import OutputTensor
from quantd_server.errors import Finding, Severity
from quantd_server.methods.base import TensorTask, WorkOptions, WorkPlan
from quantd_server.methods.blockwise import Contents, JobContext, MakeQuantizer
from quantd_server.methods.configs import GptqConfig, filled
from quantd_server.methods.gptq.config_json import CONFIG_FILE, gptq_json
from quantd_server.methods.gptq.module_settings import ModuleRules, ModuleSettings
from quantd_server.methods.group_sizes import divides, undivided
from quantd_server.methods.linear_weights import (
    LinearWeight,
    SourceTensors,
    finding,
    left_alone,
    nothing_to_quantize,
    source_tensors,
)
from quantd_server.methods.safetensors_work import (
    PlannedTensor,
    kept_tensor,
    require_huggingface,
    rescaled_tensor,
    safetensors_work,
)
from quantd_server.methods.scale_folding import (
    foldings,
    rescaling,
    without_scale_mapping,
)

if TYPE_CHECKING:
    import torch

GROUP_SIZES = (-1, 16, 32, 64, 128, 256, 512, 1024)

PACKED_ROWS = 32
"""Codes are packed 32 at a time, for all bit widths: both dimensions have to be multiples."""

DEFAULTS = GptqConfig(
    bits=4,
    group_size=128,
    damp_percent=0.05,
    damp_auto_increment=0.01,
    desc_act=False,
    sym=True,
    true_sequential=True,
    mse=0.0,
    block_size=128,
    lm_head=False,
    awq_scaling=False,
)

_LEAVE_OUT = "leave these modules out with a rule in dynamic"


class Gptq:
    """The method `gptq`; see ``methods.base.Method``."""

    name = "gptq"
    devices = ("CPU", "CUDA")
    single_file = False
    calibrated = True

    def resolve(self, config: GptqConfig) -> GptqConfig:
        config = filled(config, DEFAULTS)
        config = filled(
            config, GptqConfig(static_groups=not config.desc_act or bool(config.max_shrink))
        )
        asymmetric = not config.sym or any(
            rule.sym is False and not rule.exclude for rule in config.dynamic
        )
        return filled(
            config,
            GptqConfig(
                act_group_aware=not config.desc_act and config.group_size != -1,
                format="GPTQ_V2" if asymmetric else "GPTQ",
                max_shrink=0.5 if config.static_groups and not config.mse else 0.0,
            ),
        )

    def file_uris(self, config: GptqConfig) -> dict[str, str]:
        return {}

    def prepare(self, config: GptqConfig, checkpoint: Checkpoint, options: WorkOptions) -> WorkPlan:
        source = require_huggingface(checkpoint, self.name)
        field = f"spec.method.{self.name}"
        tensors = source_tensors(source, output_head=bool(config.lm_head))
        rules = ModuleRules(config)
        choices = {weight.module: rules[weight.module] for weight in tensors.linears}
        chosen = [
            (weight, settings)
            for weight in tensors.linears
            if isinstance(settings := choices[weight.module], ModuleSettings)
        ]
        quantized = {weight.module for weight, settings in chosen if _fits(weight, settings)}
        rescaled: dict[str, str] = {}
        if config.awq_scaling:
            shapes = {name: entry.shape for name, entry in source.tensors.items()}
            places = foldings(source.config, tensors.layout, shapes)
            rescaled = rescaling(places, quantized, source.tensors).changed
        has_head = any(weight.role is TensorRole.OUTPUT_HEAD for weight, _ in chosen)
        entry = gptq_json(config, output_head=has_head)
        work = safetensors_work(
            _planned(tensors, choices, quantized, rescaled),
            source,
            entry,
            (
                *tensors.findings,
                *_head_findings(config, tensors, field),
                *rules.findings(f"{field}.dynamic"),
                *_shape_findings(chosen, field),
                *([] if chosen else [nothing_to_quantize(field)]),
                *(
                    without_scale_mapping(source.config, f"{field}.awq_scaling")
                    if config.awq_scaling
                    else ()
                ),
            ),
            options,
        )
        text = json.dumps(entry, indent=2, ensure_ascii=False) + "\n"
        return msgspec.structs.replace(work, texts=work.texts | {CONFIG_FILE: text})

    def sequential(self, config: GptqConfig) -> bool:
        return bool(config.true_sequential)

    def tuning_epochs(self, config: GptqConfig) -> int:
        return 0

    def block_quantizers(
        self, config: GptqConfig, checkpoint: Checkpoint, context: JobContext
    ) -> MakeQuantizer:
        from quantd_server.methods.gptq import solving

        return solving.block_quantizers(
            config, require_huggingface(checkpoint, self.name), context.threads
        )

    def dequantize(self, config: GptqConfig, task: TensorTask, contents: Contents) -> torch.Tensor:
        from quantd_server.methods.gptq import solving

        return solving.dequantize(config, task, contents)


def packed_tensors(
    module: str, rows: int, columns: int, settings: ModuleSettings
) -> tuple[OutputTensor, ...]:
    """What is stored for a weight [rows, columns] = [out, in], as GPTQModel stores it.

    ``qweight`` int32[columns * bits / 32, rows] packs codes along the input dimension, ``qzeros``
    int32[groups, rows * bits / 32] along the output; ``scales`` float16[groups, rows]; ``g_idx``
    int32[columns] is the group of each input channel.
    """
    groups = settings.groups(columns)
    stored = (
        ("qweight", "I32", (columns * settings.bits // 32, rows)),
        ("qzeros", "I32", (groups, rows * settings.bits // 32)),
        ("scales", "F16", (groups, rows)),
        ("g_idx", "I32", (columns,)),
    )
    return tuple(
        OutputTensor(name=f"{module}.{name}", dtype=dtype, shape=shape, group=module)
        for name, dtype, shape in stored
    )


def _is_packable(weight: LinearWeight) -> bool:
    return weight.rows % PACKED_ROWS == 0 and weight.columns % PACKED_ROWS == 0


def _fits(weight: LinearWeight, settings: ModuleSettings) -> bool:
    return _is_packable(weight) and divides(settings.group_size, weight.columns)


def _planned(
    tensors: SourceTensors,
    choices: dict[str, ModuleSettings | str],
    quantized: set[str],
    rescaled: dict[str, str],
) -> Iterator[PlannedTensor]:
    for tensor in tensors.tensors:
        entry = tensor.entry
        settings = choices[tensor.module] if isinstance(tensor, LinearWeight) else None
        if (
            isinstance(tensor, LinearWeight)
            and isinstance(settings, ModuleSettings)
            and tensor.module in quantized
        ):
            yield PlannedTensor(
                entry=entry,
                stored=packed_tensors(tensor.module, tensor.rows, tensor.columns, settings),
                target_type=f"GPTQ{settings.bits}",
                action="QUANTIZE",
                reason="linear layer",
                transform="transpose" if tensor.transposed else "copy",
                block=tensor.block,
                held_bytes=tensor.solving_bytes(moments=2),  # scaled, factorized
            )
        elif entry.name in rescaled:
            block = tensors.layout.places[entry.name].block or 0
            yield rescaled_tensor(entry, rescaled[entry.name], block)
        elif not isinstance(tensor, LinearWeight):
            yield left_alone(tensor)
        elif isinstance(settings, ModuleSettings):
            yield kept_tensor(entry, _why_unfit(tensor, settings))
        else:
            yield kept_tensor(entry, f"excluded by {settings}")


def _why_unfit(weight: LinearWeight, settings: ModuleSettings) -> str:
    if not divides(settings.group_size, weight.columns):
        return f"{weight.columns} is not a multiple of {settings.group_size}"
    return f"[{weight.rows}, {weight.columns}] is not packable"


def _shape_findings(
    chosen: list[tuple[LinearWeight, ModuleSettings]], field: str
) -> Iterator[Finding]:
    unpackable = [weight for weight, _ in chosen if not _is_packable(weight)]
    if unpackable:
        yield finding(
            Severity.ERROR,
            "SHAPE_NOT_PACKABLE",
            field,
            f"both dimensions of a weight have to be multiples of {PACKED_ROWS} to be packed; "
            f"those of {len(unpackable)} weights are not",
            f"{_LEAVE_OUT}, or choose GGUF or bitsandbytes",
            [weight.entry.name for weight in unpackable],
        )
    misfits = [
        (weight, settings.group_size)
        for weight, settings in chosen
        if not divides(settings.group_size, weight.columns)
    ]
    yield from undivided(misfits, GROUP_SIZES, f"{field}.group_size", _LEAVE_OUT)


def _head_findings(config: GptqConfig, tensors: SourceTensors, field: str) -> Iterator[Finding]:
    if config.lm_head and tensors.layout.tied_embeddings:
        yield finding(
            Severity.WARNING,
            "OUTPUT_HEAD_TIED",
            f"{field}.lm_head",
            "the output head shares the weight of the token embeddings, which stays in its own "
            "type",
            "leave lm_head out",
        )
