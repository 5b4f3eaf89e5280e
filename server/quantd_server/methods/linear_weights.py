"""The weights that calibrated methods solve: the linear layers of the decoder blocks.

Each of the methods has rules of its own about names and shapes; what a weight is, and why the
others stay as they are, is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from quantd_server.checkpoint.huggingface import HuggingFaceCheckpoint
from quantd_server.checkpoint.layout import ModelLayout, TensorPlace, TensorRole, model_layout
from quantd_server.checkpoint.layout_findings import layout_findings
from quantd_server.checkpoint.safetensors_header import TensorEntry
from quantd_server.errors import Finding, FindingKind, Severity
from quantd_server.methods.base import subjects_of
from quantd_server.methods.safetensors_work import PlannedTensor, dropped_tensor, kept_tensor

FLOAT_TYPES = ("F32", "F16", "BF16")

SOURCE = "spec.source_uri"

_FLOAT32 = 4

_WEIGHT_COPIES = 3
"""Of the weight that is being solved, beside the walk's: scaled, rounded, residual."""

_WHY_KEPT = {
    TensorRole.EMBEDDING: "embedding",
    TensorRole.POSITION_EMBEDDING: "embedding",
    TensorRole.OUTPUT_HEAD: "output head",
    TensorRole.NORM: "norm",
    TensorRole.BIAS: "bias",
    TensorRole.ROUTER: "router",
    TensorRole.FUSED_EXPERTS: "weights of all experts in one tensor",
}


class LinearWeight(msgspec.Struct, frozen=True, kw_only=True):
    """A weight that can be solved."""

    entry: TensorEntry
    module: str
    block: int
    """Decoder block; that of the output head is one past the last."""
    role: TensorRole
    transposed: bool
    """Stored [in, out]; it is quantized as [out, in]."""

    @property
    def rows(self) -> int:
        """Output dimension."""
        return self.entry.shape[1 if self.transposed else 0]

    @property
    def columns(self) -> int:
        """Input dimension."""
        return self.entry.shape[0 if self.transposed else 1]

    def solving_bytes(self, *, moments: int) -> int:
        """Memory for the copies that a solver makes, in float32: of the weight, and ``moments``
        of the second moment of its input.
        """
        weight = self.rows * self.columns
        return _FLOAT32 * (_WEIGHT_COPIES * weight + moments * self.columns**2)


class OtherTensor(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor that stays as it is."""

    entry: TensorEntry
    reason: str
    dropped: bool = False
    """Left out of the result."""


class SourceTensors(msgspec.Struct, frozen=True, kw_only=True):
    """All tensors of a source, in checkpoint order."""

    layout: ModelLayout
    tensors: tuple[LinearWeight | OtherTensor, ...]
    findings: tuple[Finding, ...]

    @property
    def linears(self) -> Iterator[LinearWeight]:
        """The weights that can be solved."""
        return (tensor for tensor in self.tensors if isinstance(tensor, LinearWeight))


def source_tensors(
    checkpoint: HuggingFaceCheckpoint, *, output_head: bool = False, experts: bool = True
) -> SourceTensors:
    """Sorts the tensors of ``checkpoint``.

    ``output_head``: whether an untied head is a weight to solve. ``experts``: whether the weights
    of single experts are; transformers holds them outside of linear layers.
    """
    shapes = {name: entry.shape for name, entry in checkpoint.tensors.items()}
    layout = model_layout(checkpoint.config, shapes)
    tensors = tuple(
        _sorted(entry, layout, output_head=output_head, experts=experts)
        for entry in checkpoint.tensors.values()
    )
    return SourceTensors(
        layout=layout,
        tensors=tensors,
        findings=(
            *layout_findings(checkpoint.config, layout),
            *_architecture_findings(layout),
            *_expert_findings(layout, experts=experts),
            *_type_findings(tensors, layout),
        ),
    )


def _sorted(
    entry: TensorEntry, layout: ModelLayout, *, output_head: bool, experts: bool
) -> LinearWeight | OtherTensor:
    place = layout.places[entry.name]
    if place.role is TensorRole.OUTPUT_HEAD and layout.tied_embeddings:
        # transformers ties it whatever the file says, and does not save it again.
        return OtherTensor(entry=entry, reason="tied to the token embeddings", dropped=True)
    block = _block(place, layout, output_head=output_head, experts=experts)
    if block is None:
        return OtherTensor(entry=entry, reason=_why_kept(place))
    if entry.dtype not in FLOAT_TYPES:
        return OtherTensor(entry=entry, reason=f"{entry.dtype} is not a float type of weights")
    if not entry.nbytes:
        return OtherTensor(entry=entry, reason="no weights")
    return LinearWeight(
        entry=entry,
        module=place.module,
        block=block,
        role=place.role,
        transposed=place.transposed,
    )


def _block(
    place: TensorPlace, layout: ModelLayout, *, output_head: bool, experts: bool
) -> int | None:
    """The block with which the weight at ``place`` is solved; None for any other tensor."""
    if not place.name.endswith(".weight"):
        return None
    if place.role is TensorRole.OUTPUT_HEAD:
        last = layout.declared_blocks if layout.declared_blocks is not None else layout.blocks
        return last if output_head else None
    is_solved = place.role is TensorRole.LINEAR or (experts and place.role is TensorRole.EXPERT)
    return place.block if is_solved else None


def _why_kept(place: TensorPlace) -> str:
    if place.role is TensorRole.EXPERT:
        return "expert weights, which transformers holds outside of linear layers"
    if place.is_linear_module and place.role is TensorRole.OTHER:
        return "linear layer outside of the decoder blocks"
    return _WHY_KEPT.get(place.role, "not the weight of a linear layer")


def finding(
    severity: Severity,
    reason: str,
    field: str,
    message: str,
    remedy: str,
    subjects: Iterable[str] = (),
    kind: FindingKind = "precondition",
) -> Finding:
    """A finding about ``subjects``, whose number and first names end the message."""
    names, count = subjects_of(list(subjects))
    listed = f": {', '.join(names[:3])}{', ...' if count > 3 else ''}" if names else ""
    return Finding(
        severity=severity,
        field=field,
        reason=reason,
        message=message + listed,
        remedy=remedy,
        kind=kind,
        subjects=names,
        subject_count=count,
    )


def left_alone(tensor: OtherTensor) -> PlannedTensor:
    """The plan of a tensor that stays as it is."""
    if tensor.dropped:
        return dropped_tensor(tensor.entry, tensor.reason)
    return kept_tensor(tensor.entry, tensor.reason)


def nothing_to_quantize(field: str) -> Finding:
    """Says that no weight is left."""
    return finding(
        Severity.ERROR,
        "NOTHING_TO_QUANTIZE",
        field,
        "no tensor would be quantized",
        "leave out fewer modules, or check that the source is a language model",
    )


def _architecture_findings(layout: ModelLayout) -> Iterator[Finding]:
    if not layout.recognized:
        yield finding(
            Severity.WARNING,
            "ARCHITECTURE_NOT_RECOGNIZED",
            SOURCE,
            f"model_type {layout.model_type!r} is not among the families whose linear layers are "
            "known; they were told from the names and shapes of the tensors",
            "look at the list of tensors in the plan before quantizing",
        )


def _expert_findings(layout: ModelLayout, *, experts: bool) -> Iterator[Finding]:
    fused = [place.name for place in layout.with_role(TensorRole.FUSED_EXPERTS)]
    if fused:
        yield finding(
            Severity.WARNING,
            "EXPERTS_NOT_QUANTIZED",
            SOURCE,
            "expert weights stay in their own type where one tensor holds those of all experts of "
            "a block; the format has a place for single experts only",
            "choose GGUF, or take the checkpoint apart into one tensor an expert",
            fused,
        )
    single = [place.name for place in layout.with_role(TensorRole.EXPERT)]
    if single and not experts:
        yield finding(
            Severity.WARNING,
            "EXPERTS_NOT_QUANTIZED",
            SOURCE,
            "expert weights stay in their own type: transformers, the only reader, holds them "
            "outside of linear layers",
            "choose GGUF, GPTQ or AWQ for a mixture-of-experts model",
            single,
        )


def _type_findings(
    tensors: Iterable[LinearWeight | OtherTensor], layout: ModelLayout
) -> Iterator[Finding]:
    odd = [
        tensor.entry.name
        for tensor in tensors
        if isinstance(tensor, OtherTensor)
        and layout.places[tensor.entry.name].role in (TensorRole.LINEAR, TensorRole.EXPERT)
        and tensor.entry.name.endswith(".weight")
        and tensor.entry.dtype not in FLOAT_TYPES
    ]
    if odd:
        yield finding(
            Severity.ERROR,
            "WEIGHT_TYPE_NOT_QUANTIZABLE",
            SOURCE,
            f"{len(odd)} weights of linear layers are not in float32, float16 or bfloat16",
            "name the original checkpoint, in one of these types",
            odd,
        )
