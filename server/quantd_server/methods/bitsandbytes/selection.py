"""Which weights bitsandbytes quantizes: the linears of a model, but for those that are skipped.

The rules are transformers': `get_keys_to_not_convert` (output head, tied weights) as the default,
`should_convert_module` for a list given by the caller, which replaces the default.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from quantd_server.checkpoint.huggingface import HuggingFaceCheckpoint
from quantd_server.checkpoint.layout import ModelLayout, TensorRole, model_layout
from quantd_server.checkpoint.layout_findings import layout_findings
from quantd_server.checkpoint.safetensors_header import TensorEntry
from quantd_server.errors import Finding, Severity
from quantd_server.methods.base import subjects_of
from quantd_server.methods.patterns import Pattern, compile_pattern

QUANTIZABLE = ("F32", "F16", "BF16")

_WHY_KEPT = {
    TensorRole.EMBEDDING: "embedding",
    TensorRole.POSITION_EMBEDDING: "embedding",
    TensorRole.NORM: "norm",
    TensorRole.BIAS: "bias",
    TensorRole.ROUTER: "router",
    TensorRole.EXPERT: "expert weights, which transformers holds outside of linear layers",
    TensorRole.FUSED_EXPERTS: "fused expert weights, which transformers holds outside of linear "
    "layers",
}


class Selected(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor of the source and what becomes of it."""

    entry: TensorEntry
    action: Literal["QUANTIZE", "KEEP", "DROP"]
    reason: str
    transposed: bool = False
    """Stored [in, out]; it is quantized as [out, in]."""
    has_other_type: bool = False
    """Kept for nothing but its type, which is no float type of weights."""

    @property
    def linear_shape(self) -> tuple[int, ...]:
        """[out, in]."""
        return self.entry.shape[::-1] if self.transposed else self.entry.shape


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """All tensors of the source, in checkpoint order."""

    tensors: tuple[Selected, ...]
    findings: tuple[Finding, ...]


def select(checkpoint: HuggingFaceCheckpoint, skip_modules: Sequence[str], field: str) -> Selection:
    """Choose the weights to quantize; ``field`` is the path of the method's configuration."""
    layout = model_layout(
        checkpoint.config, {name: entry.shape for name, entry in checkpoint.tensors.items()}
    )
    skips = _Skips(skip_modules, field)
    tensors = tuple(_decide(entry, layout, skips) for entry in checkpoint.tensors.values())
    findings = [
        *layout_findings(checkpoint.config, layout),
        *_linear_layer_findings(checkpoint, layout),
        *skips.findings(),
        *_type_findings(tensors),
    ]
    if not any(tensor.action == "QUANTIZE" for tensor in tensors):
        findings.append(
            Finding(
                severity=Severity.ERROR,
                field=field,
                reason="NOTHING_TO_QUANTIZE",
                message="no tensor would be quantized",
                remedy="skip fewer modules, or check that the source is a language model",
                kind="precondition",
            )
        )
    return Selection(tensors=tensors, findings=tuple(findings))


def _decide(entry: TensorEntry, layout: ModelLayout, skips: _Skips) -> Selected:
    place = layout.places[entry.name]
    if place.role is TensorRole.OUTPUT_HEAD and layout.tied_embeddings:
        # transformers ties it whatever the file says, and does not save it again.
        return Selected(entry=entry, action="DROP", reason="tied to the token embeddings")
    if not place.is_linear_module or not entry.name.endswith(".weight"):
        reason = _WHY_KEPT.get(place.role, "not the weight of a linear layer")
    elif place.role is TensorRole.OUTPUT_HEAD and not skips.given:
        reason = "output head"
    elif pattern := skips.match(place.module):
        reason = f"excluded by {pattern}"
    elif not entry.nbytes:
        reason = "no weights"
    elif entry.dtype not in QUANTIZABLE:
        reason = f"{entry.dtype} is not a float type of weights"
        return Selected(entry=entry, action="KEEP", reason=reason, has_other_type=True)
    else:
        return Selected(
            entry=entry, action="QUANTIZE", reason="linear layer", transposed=place.transposed
        )
    return Selected(entry=entry, action="KEEP", reason=reason)


def _type_findings(tensors: Sequence[Selected]) -> Iterator[Finding]:
    odd = [tensor.entry.name for tensor in tensors if tensor.has_other_type]
    if odd:
        subjects, count = subjects_of(odd)
        yield Finding(
            severity=Severity.ERROR,
            field="spec.source_uri",
            reason="WEIGHT_TYPE_NOT_QUANTIZABLE",
            message=f"{count} weights of linear layers are not in float32, float16 or bfloat16: "
            f"{', '.join(subjects[:3])}",
            remedy="name the original checkpoint, in one of these types, or skip these modules",
            kind="precondition",
            subjects=subjects,
            subject_count=count,
        )


class _Skips:
    """A caller's `llm_int8_skip_modules`; remembers which entries matched."""

    def __init__(self, names: Sequence[str], field: str) -> None:
        self.given = bool(names)
        self._field = f"{field}.llm_int8_skip_modules"
        self._names = tuple(names)
        self._used: set[str] = set()
        self._bad: list[str] = []
        self._patterns: list[tuple[str, Pattern]] = []
        for name in names:
            try:
                self._patterns.append((name, compile_pattern(name)))
            except ValueError:
                self._bad.append(name)

    def match(self, module: str) -> str | None:
        """The first entry that covers ``module``: matched at its start, or equal to its end."""
        for name, pattern in self._patterns:
            if pattern.match(module) or module.endswith(name):
                self._used.add(name)
                return name
        return None

    def findings(self) -> Iterator[Finding]:
        if self._bad:
            subjects, count = subjects_of(self._bad)
            yield Finding(
                severity=Severity.ERROR,
                field=self._field,
                reason="PATTERN_INVALID",
                message=f"not a regular expression: {', '.join(subjects)}",
                remedy="write a module name such as lm_head, or an RE2 expression",
                subjects=subjects,
                subject_count=count,
            )
        unused = [name for name, _ in self._patterns if name not in self._used]
        if unused:
            subjects, count = subjects_of(unused)
            yield Finding(
                severity=Severity.WARNING,
                field=self._field,
                reason="PATTERN_UNMATCHED",
                message=f"no linear layer is named by: {', '.join(subjects)}",
                remedy="correct the names, or leave them out",
                subjects=subjects,
                subject_count=count,
            )


def _linear_layer_findings(
    checkpoint: HuggingFaceCheckpoint, layout: ModelLayout
) -> Iterator[Finding]:
    if not layout.recognized:
        yield Finding(
            severity=Severity.WARNING,
            field="spec.source_uri",
            reason="ARCHITECTURE_NOT_RECOGNIZED",
            message=f"model_type {checkpoint.model_type!r} is not among the families whose linear "
            "layers are known; they were told from the names and shapes of the tensors",
            remedy="look at the list of tensors in the plan before quantizing",
            kind="precondition",
        )
    experts = [
        place.name for place in layout.with_role(TensorRole.EXPERT, TensorRole.FUSED_EXPERTS)
    ]
    if experts:
        subjects, count = subjects_of(experts)
        yield Finding(
            severity=Severity.WARNING,
            field="spec.source_uri",
            reason="EXPERTS_NOT_QUANTIZED",
            message="expert weights stay in their own type: transformers holds them outside of "
            "linear layers, which is all that bitsandbytes replaces",
            remedy="choose GGUF for a mixture-of-experts model",
            kind="precondition",
            subjects=subjects,
            subject_count=count,
        )
