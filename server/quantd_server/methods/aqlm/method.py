"""The plan of an AQLM checkpoint: codes, codebooks and scales."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from quantd_server.checkpoint.layout import TensorRole
from quantd_server.checkpoint.opening import Checkpoint
from quantd_server.checkpoint.safetensors_layout import OutputTensor
from quantd_server.errors import Finding, Severity
from quantd_server.methods.aqlm.config_json import aqlm_json
from quantd_server.methods.aqlm.rules import code_findings
from quantd_server.methods.aqlm.shape import CodeShape
from quantd_server.methods.base import TensorTask, WorkOptions, WorkPlan
from quantd_server.methods.blockwise import Contents, JobContext, MakeQuantizer
from quantd_server.methods.configs import AqlmConfig, filled
from quantd_server.methods.linear_weights import (
    FLOAT_TYPES,
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

if TYPE_CHECKING:
    import torch

DEFAULTS = AqlmConfig(
    num_codebooks=1,
    nbits_per_codebook=16,
    in_group_size=8,
    out_group_size=1,
    relative_mse_tolerance=0.01,
    max_epochs=1000,
    steps_per_epoch=100,
    lr=1e-4,
    beam_size=1,
    init_max_iter=100,
    init_max_points_per_centroid=0,
    finetune_max_epochs=4,
    finetune_lr=3e-4,
    finetune_batch_size=2,
    finetune_early_stop=3,
)

FLOAT32 = 4
_COPIES = 4
"""Of a weight while its gradient is passed on: itself without scales, groups of it, their indices
of 8 bytes for each group."""

_WHAT = {TensorRole.NORM: "norm", TensorRole.BIAS: "bias"}
"""Of what is tuned besides the codes."""


class Aqlm:
    """The method `aqlm`; see ``methods.base.Method``."""

    name = "aqlm"
    devices = ("CPU", "CUDA")
    single_file = False
    calibrated = True

    def resolve(self, config: AqlmConfig) -> AqlmConfig:
        return filled(config, DEFAULTS)

    def file_uris(self, config: AqlmConfig) -> dict[str, str]:
        return {}

    def prepare(self, config: AqlmConfig, checkpoint: Checkpoint, options: WorkOptions) -> WorkPlan:
        source = require_huggingface(checkpoint, self.name)
        field = f"spec.method.{self.name}"
        shape = CodeShape.of(config)
        excluded = frozenset(config.linear_weights_not_to_quantize)
        tensors = source_tensors(source, output_head=bool(excluded), experts=False)
        chosen = [weight for weight in tensors.linears if weight.entry.name not in excluded]
        quantized = {
            weight.module for weight in chosen if shape.divides(weight.rows, weight.columns)
        }
        tuned = _tuned(tensors, quantized) if self.tuning_epochs(config) else {}
        kept = [
            place.module
            for place in tensors.layout.places.values()
            if place.is_linear_module and place.module not in quantized
        ]
        return safetensors_work(
            _planned(tensors, excluded, quantized, tuned, shape, config.beam_size or 1),
            source,
            aqlm_json(config, kept),
            (
                *tensors.findings,
                *_exclusion_findings(excluded, tensors, field),
                *code_findings(chosen, shape, field),
                *([] if chosen else [nothing_to_quantize(field)]),
            ),
            options,
            tuning_bytes=_tuning_bytes(chosen, shape) if tuned else 0,
        )

    def sequential(self, config: AqlmConfig) -> bool:
        return True

    def tuning_epochs(self, config: AqlmConfig) -> int:
        return config.finetune_max_epochs or 0

    def block_quantizers(
        self, config: AqlmConfig, checkpoint: Checkpoint, context: JobContext
    ) -> MakeQuantizer:
        from quantd_server.methods.aqlm import solving

        return solving.block_quantizers(config, context)

    def dequantize(self, config: AqlmConfig, task: TensorTask, contents: Contents) -> torch.Tensor:
        from quantd_server.methods.aqlm import solving

        return solving.dequantize(task, contents)


def stored_tensors(
    module: str, rows: int, columns: int, shape: CodeShape
) -> tuple[OutputTensor, ...]:
    """What is stored for a weight [rows, columns] = [out, in], as `aqlm.QuantizedLinear` has it.

    ``codes`` int8 or int16 [out groups, in groups, codebooks]; ``codebooks`` float16[codebooks,
    2^bits, out group, in group]; ``scales`` float16[out groups, 1, 1, 1].
    """
    out_groups = rows // shape.out_group
    stored = (
        ("codes", shape.code_dtype, (out_groups, columns // shape.in_group, shape.codebooks)),
        ("codebooks", "F16", (shape.codebooks, 2**shape.bits, shape.out_group, shape.in_group)),
        ("scales", "F16", (out_groups, 1, 1, 1)),
    )
    return tuple(
        OutputTensor(name=f"{module}.{name}", dtype=dtype, shape=size, group=module)
        for name, dtype, size in stored
    )


def _tuned(tensors: SourceTensors, quantized: set[str]) -> dict[str, int]:
    """The norms and biases of blocks that hold quantized weights, with the block, by name."""
    blocks = {weight.block for weight in tensors.linears if weight.module in quantized}
    return {
        tensor.entry.name: place.block
        for tensor in tensors.tensors
        if (place := tensors.layout.places[tensor.entry.name]).role in _WHAT
        and place.block is not None
        and place.block in blocks
        and tensor.entry.dtype in FLOAT_TYPES
        and tensor.entry.nbytes
    }


def _tuning_bytes(weights: Iterable[LinearWeight], shape: CodeShape) -> int:
    """Of the block that takes most, and of the weight whose gradient is passed on to its code."""
    blocks: dict[int, int] = defaultdict(int)
    largest = 0
    for weight in weights:
        blocks[weight.block] += shape.tuning_bytes(weight.rows, weight.columns)
        largest = max(largest, _COPIES * FLOAT32 * weight.rows * weight.columns)
    return max(blocks.values(), default=0) + largest


def _planned(
    tensors: SourceTensors,
    excluded: frozenset[str],
    quantized: set[str],
    tuned: Mapping[str, int],
    shape: CodeShape,
    beam_size: int,
) -> Iterator[PlannedTensor]:
    for tensor in tensors.tensors:
        entry = tensor.entry
        if entry.name in tuned:
            reason = f"{_WHAT[tensors.layout.places[entry.name].role]}, tuned with its block"
            yield rescaled_tensor(entry, reason, tuned[entry.name])
        elif not isinstance(tensor, LinearWeight):
            yield left_alone(tensor)
        elif tensor.module in quantized:
            yield PlannedTensor(
                entry=entry,
                stored=stored_tensors(tensor.module, tensor.rows, tensor.columns, shape),
                target_type=f"AQLM{shape.name}",
                action="QUANTIZE",
                reason="linear layer",
                transform="transpose" if tensor.transposed else "copy",
                block=tensor.block,
                held_bytes=tensor.solving_bytes(moments=1)  # damped
                + shape.solving_bytes(tensor.rows, tensor.columns, beam_size),
            )
        elif entry.name in excluded:
            yield kept_tensor(entry, "excluded by linear_weights_not_to_quantize")
        else:
            yield kept_tensor(
                entry,
                f"[{tensor.rows}, {tensor.columns}] does not fall into groups of "
                f"[{shape.out_group}, {shape.in_group}]",
            )


def _exclusion_findings(
    excluded: frozenset[str], tensors: SourceTensors, field: str
) -> Iterator[Finding]:
    unknown = sorted(excluded - tensors.layout.places.keys())
    if unknown:
        yield finding(
            Severity.WARNING,
            "PATTERN_UNMATCHED",
            f"{field}.linear_weights_not_to_quantize",
            f"{len(unknown)} entries are no parameters of the source",
            'write full names such as "lm_head.weight", or leave them out',
            unknown,
            kind="invalid",
        )
