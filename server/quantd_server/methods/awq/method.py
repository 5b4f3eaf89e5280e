"""The plan of an AWQ checkpoint: packed codes, zero points and scales, and what takes up 1 / s."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from quantd_server.checkpoint.layout import TensorRole
from quantd_server.checkpoint.opening import Checkpoint
from quantd_server.checkpoint.safetensors_layout import OutputTensor
from quantd_server.errors import Finding, Severity
from quantd_server.methods.awq.config_json import awq_json
from quantd_server.methods.awq.exclusions import Exclusions
from quantd_server.methods.base import TensorTask, WorkOptions, WorkPlan
from quantd_server.methods.blockwise import Contents, JobContext, MakeQuantizer
from quantd_server.methods.configs import AwqConfig, filled
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
from quantd_server.methods.scale_folding import foldings, rescaling, without_scale_mapping

if TYPE_CHECKING:
    import torch

GROUP_SIZES = (-1, 16, 32, 64, 128)

CODES_PER_WORD = 8
"""4-bit codes in an int32, packed along the output dimension, which has to be a multiple."""

DEFAULTS = AwqConfig(
    bits=4,
    group_size=128,
    zero_point=True,
    format="GEMM",
    n_grid=20,
    apply_clip=True,
    max_shrink=0.5,
    gptq_solver=False,
)

_LEAVE_OUT = "leave these modules out with modules_to_not_convert"


class Awq:
    """The method `awq`; see ``methods.base.Method``."""

    name = "awq"
    devices = ("CPU", "CUDA")
    single_file = False
    calibrated = True

    def resolve(self, config: AwqConfig) -> AwqConfig:
        return filled(config, DEFAULTS)

    def file_uris(self, config: AwqConfig) -> dict[str, str]:
        return {}

    def prepare(self, config: AwqConfig, checkpoint: Checkpoint, options: WorkOptions) -> WorkPlan:
        source = require_huggingface(checkpoint, self.name)
        field = f"spec.method.{self.name}"
        tensors = source_tensors(source)
        exclusions = Exclusions(config.modules_to_not_convert)
        excluded = {weight.module: exclusions.match(weight.module) for weight in tensors.linears}
        chosen = [weight for weight in tensors.linears if not excluded[weight.module]]
        group_size = config.group_size or -1
        quantized = {weight.module for weight in chosen if _fits(weight, group_size)}
        shapes = {name: entry.shape for name, entry in source.tensors.items()}
        scaled = rescaling(
            foldings(source.config, tensors.layout, shapes), quantized, source.tensors
        )
        # Gates of one row, which transformers holds in linear layers.
        gates = [
            place.module
            for place in tensors.layout.with_role(TensorRole.ROUTER)
            if place.is_linear_module
        ]
        return safetensors_work(
            _planned(tensors, excluded, quantized, scaled.changed, group_size),
            source,
            awq_json(config, [*exclusions.for_readers(quantized), *gates]),
            (
                *tensors.findings,
                *exclusions.findings(f"{field}.modules_to_not_convert"),
                *_format_findings(config, field),
                *_shape_findings(chosen, group_size, field),
                *([] if chosen else [nothing_to_quantize(field)]),
                *without_scale_mapping(source.config, field),
            ),
            options,
        )

    def sequential(self, config: AwqConfig) -> bool:
        return True

    def tuning_epochs(self, config: AwqConfig) -> int:
        return 0

    def block_quantizers(
        self, config: AwqConfig, checkpoint: Checkpoint, context: JobContext
    ) -> MakeQuantizer:
        from quantd_server.methods.awq import solving

        return solving.block_quantizers(
            config, require_huggingface(checkpoint, self.name), context.threads
        )

    def dequantize(self, config: AwqConfig, task: TensorTask, contents: Contents) -> torch.Tensor:
        from quantd_server.methods.awq import solving

        return solving.dequantize(task, contents)


def packed_tensors(
    module: str, rows: int, columns: int, group_size: int
) -> tuple[OutputTensor, ...]:
    """What is stored for a weight [rows, columns] = [out, in] in the gemm format of AutoAWQ.

    ``qweight`` int32[columns, rows / 8] and ``qzeros`` int32[groups, rows / 8] pack along the
    output dimension; ``scales`` float16[groups, rows].
    """
    groups = 1 if group_size == -1 else columns // group_size
    words = rows // CODES_PER_WORD
    stored = (
        ("qweight", "I32", (columns, words)),
        ("qzeros", "I32", (groups, words)),
        ("scales", "F16", (groups, rows)),
    )
    return tuple(
        OutputTensor(name=f"{module}.{name}", dtype=dtype, shape=shape, group=module)
        for name, dtype, shape in stored
    )


def _is_packable(weight: LinearWeight) -> bool:
    return weight.rows % CODES_PER_WORD == 0


def _fits(weight: LinearWeight, group_size: int) -> bool:
    return _is_packable(weight) and divides(group_size, weight.columns)


def _planned(
    tensors: SourceTensors,
    excluded: dict[str, str | None],
    quantized: set[str],
    rescaled: dict[str, str],
    group_size: int,
) -> Iterator[PlannedTensor]:
    for tensor in tensors.tensors:
        entry = tensor.entry
        if isinstance(tensor, LinearWeight) and tensor.module in quantized:
            yield PlannedTensor(
                entry=entry,
                stored=packed_tensors(tensor.module, tensor.rows, tensor.columns, group_size),
                target_type="AWQ4",
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
        elif excluded[tensor.module]:
            yield kept_tensor(entry, f"excluded by {excluded[tensor.module]}")
        elif not divides(group_size, tensor.columns):
            yield kept_tensor(entry, f"{tensor.columns} is not a multiple of {group_size}")
        else:
            yield kept_tensor(entry, f"{tensor.rows} is not a multiple of {CODES_PER_WORD}")


def _format_findings(config: AwqConfig, field: str) -> Iterator[Finding]:
    if config.format != "GEMM":
        yield finding(
            Severity.ERROR,
            "AWQ_FORMAT_NOT_WRITTEN",
            f"{field}.format",
            f"format {config.format} is understood, but not written",
            "leave format out, or set it to GEMM, which all engines read",
            kind="invalid",
        )


def _shape_findings(
    chosen: Sequence[LinearWeight], group_size: int, field: str
) -> Iterator[Finding]:
    unpackable = [weight for weight in chosen if not _is_packable(weight)]
    if unpackable:
        yield finding(
            Severity.ERROR,
            "SHAPE_NOT_PACKABLE",
            field,
            f"the output dimension of a weight has to be a multiple of {CODES_PER_WORD} to be "
            f"packed; that of {len(unpackable)} weights is not",
            f"{_LEAVE_OUT}, or choose GGUF or bitsandbytes",
            [weight.entry.name for weight in unpackable],
        )
    misfits = [(weight, group_size) for weight in chosen if not divides(group_size, weight.columns)]
    yield from undivided(misfits, GROUP_SIZES, f"{field}.group_size", _LEAVE_OUT)
