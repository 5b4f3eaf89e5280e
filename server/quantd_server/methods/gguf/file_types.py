"""GGUF file types, and the tensor type that each tensor gets in one.

The choice equals that of ``llama-quantize`` (``llama_tensor_get_type`` in src/llama-quant.cpp,
version 0.5), with a reason for each tensor. Where llama-quantize gives up (rows that fit neither
the type nor a fallback), the tensor stays F16 and a finding says so.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import msgspec

from quantd_server.checkpoint.gguf_types import GGML_TYPES
from quantd_server.errors import Finding, Severity, quoted
from quantd_server.methods.gguf import mixtures
from quantd_server.methods.gguf.mixtures import EIGHT_EXPERTS, Place, Role
from quantd_server.methods.gguf.overrides import Override, Overrides

__all__ = [
    "ALIASES",
    "FILE_TYPES",
    "FileType",
    "ModelFacts",
    "Override",
    "TensorToType",
    "TypeChoice",
    "TypeSelection",
    "choose_types",
]

FIELD = "spec.method.gguf"
MAX_SUBJECTS = 16
"""Names that one finding lists."""


class FileType(msgspec.Struct, frozen=True):
    """A file type: its id (``general.file_type``), base tensor type, and what to expect of it."""

    name: str
    id: int
    base_type: str
    note: str

    @property
    def bits_per_weight(self) -> float:
        """Bits of one weight in the base type."""
        kind = GGML_TYPES[self.base_type]
        return 8 * kind.nbytes / kind.elements


_TABLE = (
    FileType("F32", 0, "F32", "not quantized"),
    FileType("F16", 1, "F16", "not quantized"),
    FileType("BF16", 32, "BF16", "not quantized"),
    FileType("Q8_0", 7, "Q8_0", "nearly lossless"),
    FileType("Q6_K", 18, "Q6_K", "very small loss"),
    FileType("Q5_K_M", 17, "Q5_K", "Q5_K with Q6_K in sensitive tensors"),
    FileType("Q5_K_S", 16, "Q5_K", "Q5_K throughout"),
    FileType("Q5_1", 9, "Q5_1", "older format; Q5_K_M is better"),
    FileType("Q5_0", 8, "Q5_0", "older format; Q5_K_S is better"),
    FileType("Q4_K_M", 15, "Q4_K", "Q4_K with Q6_K in sensitive tensors; the usual choice"),
    FileType("Q4_K_S", 14, "Q4_K", "Q4_K with Q5_K in a few tensors"),
    FileType("Q4_1", 3, "Q4_1", "older format; Q4_K_M is better"),
    FileType("Q4_0", 2, "Q4_0", "older format; Q4_K_S is better"),
    FileType("IQ4_NL", 25, "IQ4_NL", "non-linear 4-bit grid, blocks of 32"),
    FileType("IQ4_XS", 30, "IQ4_XS", "non-linear 4-bit grid, blocks of 256"),
    FileType("MXFP4_MOE", 38, "MXFP4", "MXFP4 in mixture-of-experts tensors, Q8_0 elsewhere"),
    FileType("Q3_K_L", 13, "Q3_K", "Q3_K with Q5_K in sensitive tensors"),
    FileType("Q3_K_M", 12, "Q3_K", "Q3_K with Q4_K and Q5_K in sensitive tensors"),
    FileType("Q3_K_S", 11, "Q3_K", "Q3_K throughout; high loss"),
    FileType("IQ3_M", 27, "IQ3_S", "IQ3_S with Q4_K in sensitive tensors"),
    FileType("IQ3_S", 26, "IQ3_S", "IQ3_S throughout"),
    FileType("IQ3_XS", 22, "IQ3_S", "IQ3_S and IQ3_XXS; needs an importance matrix"),
    FileType("Q2_K", 10, "Q2_K", "Q2_K with Q3_K and Q4_K in sensitive tensors; high loss"),
    FileType("Q2_K_S", 21, "Q2_K", "Q2_K; needs an importance matrix"),
    FileType("TQ2_0", 37, "TQ2_0", "for models trained with ternary weights only"),
    FileType("TQ1_0", 36, "TQ1_0", "for models trained with ternary weights only"),
)

FILE_TYPES: dict[str, FileType] = {entry.name: entry for entry in _TABLE}
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "MXFP4": "MXFP4_MOE"}
"""Other names for a file type, as on llama-quantize's command line."""


class TensorToType(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor of the GGUF file whose type is to be chosen."""

    name: str
    shape: tuple[int, ...]
    """Row-major; the last dimension is the row."""
    source_type: str
    """ggml type that it has in the unquantized file, and keeps if it is never quantized: F32 for
    one-dimensional tensors that come from safetensors."""


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules know about the model."""

    gguf_arch: str
    blocks: int
    heads: int
    kv_heads: int
    experts: int = 0

    @property
    def heads_per_kv_head(self) -> int:
        return self.heads // self.kv_heads if self.kv_heads else 0

    @property
    def is_large(self) -> bool:
        """Whether llama.cpp takes it for a "70B" model."""
        if self.blocks != mixtures.LARGE_MODEL_BLOCKS.get(self.gguf_arch):
            return False
        # In the llama architecture other sizes have as many blocks.
        grouped = self.heads != self.kv_heads and self.experts != EIGHT_EXPERTS
        return grouped or self.gguf_arch != "llama"


class TypeChoice(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    ggml_type: str
    reason: str
    """Why, in short words for people."""
    is_fallback: bool = False
    """Another type than the rules give, because the rows do not fit that one."""


class TypeSelection(msgspec.Struct, frozen=True, kw_only=True):
    choices: tuple[TypeChoice, ...]
    """In the order of the tensors that were asked for."""
    findings: tuple[Finding, ...]


def choose_types(
    tensors: Sequence[TensorToType],
    facts: ModelFacts,
    file_type: str,
    *,
    overrides: Sequence[Override] = (),
    output_type: str | None = None,
    token_embedding_type: str | None = None,
    pure: bool = False,
    has_imatrix: bool = False,
) -> TypeSelection:
    """The ggml type of each tensor in a file of type ``file_type`` (a key of ``FILE_TYPES``).

    ``pure`` switches the mixture off: every tensor gets the base type. ``output_type`` and
    ``token_embedding_type`` set these two tensors; an override wins over the mixture and the
    first pattern that is found wins. Raises KeyError for an unknown file or tensor type.
    """
    for name in (output_type, token_embedding_type, *(o.type for o in overrides)):
        if name is not None and name not in GGML_TYPES:
            raise KeyError(name)
    selection = _Selection(
        tensors=tensors,
        facts=facts,
        file_type=FILE_TYPES[file_type],
        overrides=Overrides(overrides),
        output_type=output_type,
        token_embedding_type=token_embedding_type,
        pure=pure,
        has_imatrix=has_imatrix,
    )
    return selection.result()


class _Selection:
    """One run over the tensors: counters, choices and findings."""

    def __init__(
        self,
        *,
        tensors: Sequence[TensorToType],
        facts: ModelFacts,
        file_type: FileType,
        overrides: Overrides,
        output_type: str | None,
        token_embedding_type: str | None,
        pure: bool,
        has_imatrix: bool,
    ) -> None:
        self.tensors = tensors
        self.facts = facts
        self.file_type = file_type
        self.overrides = overrides
        self.output_type = output_type
        self.token_embedding_type = token_embedding_type
        self.pure = pure
        self.has_imatrix = has_imatrix
        self.tied = all(tensor.name != "output.weight" for tensor in tensors)
        self.seen: Counter[Role] = Counter()
        self.values = sum(mixtures.role_of(t.name) is Role.ATTENTION_VALUE for t in tensors)
        self.without_block: list[str] = []
        self.without_imatrix: list[str] = []

    def result(self) -> TypeSelection:
        # llama.cpp visits blocks in order, whatever the order in the file; its counters see that.
        choices = {t.name: self._choose(t) for t in sorted(self.tensors, key=_visit_order)}
        return TypeSelection(
            choices=tuple(choices[tensor.name] for tensor in self.tensors),
            findings=tuple(self._findings()),
        )

    def _choose(self, tensor: TensorToType) -> TypeChoice:
        kept = mixtures.why_kept(tensor.name, tensor.shape)
        if kept is not None:
            return TypeChoice(
                name=tensor.name,
                ggml_type=tensor.source_type,
                reason=f"kept {tensor.source_type}: {kept}",
            )
        ggml_type, reason = self._wanted(tensor)
        fitting, note = self._fit(tensor, ggml_type)
        if note:
            reason = f"{note} ({reason})"
        if self._lacks_imatrix(tensor.name, fitting):
            self.without_imatrix.append(tensor.name)
        return TypeChoice(
            name=tensor.name, ggml_type=fitting, reason=reason, is_fallback=bool(note)
        )

    def _wanted(self, tensor: TensorToType) -> tuple[str, str]:
        """Type and reason before the shape is looked at."""
        role, base = mixtures.role_of(tensor.name), self.file_type.base_type
        override = self.overrides.find(tensor.name)
        # per_layer_token_embd is a table of its own: an override that names it wins.
        named = override is not None and tensor.name != "token_embd.weight"
        if role is Role.TOKEN_EMBEDDING and self.token_embedding_type is not None and not named:
            return self.token_embedding_type, "token_embedding_type"
        if role is Role.OUTPUT and self.output_type is not None:
            return self.output_type, "output_type"
        if GGML_TYPES[base].elements == 1:
            return base, f"base type of {self.file_type.name}"
        if override is not None:
            return override.type, f"override by pattern {quoted(override.pattern)}"
        if self.pure:
            return base, f"base type of {self.file_type.name}, pure"
        return self._by_mixture(tensor, role)

    def _by_mixture(self, tensor: TensorToType, role: Role) -> tuple[str, str]:
        base, name = self.file_type.base_type, self.file_type.name
        if any(part in tensor.name for part in mixtures.AT_LEAST_Q8.get(self.facts.gguf_arch, ())):
            return "Q8_0", f"sensitive in {self.facts.gguf_arch}"
        if role is Role.OUTPUT or (self.tied and role is Role.TOKEN_EMBEDDING):
            return self._output_layer(tensor)
        if name == "MXFP4_MOE":
            experts = len(tensor.shape) > 2 and tensor.shape[-3] > 1
            if experts and self._is_expert_tensor(role):
                return base, "experts of MXFP4_MOE"
            return "Q8_0", "no experts: Q8_0 by the MXFP4_MOE mixture"
        place = self._place(tensor.name, role)
        chosen = self._with_experts(role, place)
        if chosen is None:
            rules = mixtures.rules_for(name, role, self.facts.gguf_arch)
            chosen = next((rule.type for rule in rules if rule.condition(place)), base)
            if role is Role.ATTENTION_VALUE and self.facts.is_large:
                chosen = mixtures.LARGE_MODEL_VALUE.get(chosen, chosen)
        if chosen == base:
            return base, f"base type of {name}"
        where = "" if role is Role.TOKEN_EMBEDDING else f" of layer {place.layer}"
        return chosen, f"{role.value}{where}: {chosen} by the {name} mixture"

    def _output_layer(self, tensor: TensorToType) -> tuple[str, str]:
        base, name = self.file_type.base_type, self.file_type.name
        if self.output_type is not None:
            return self.output_type, "output_type (tied embedding)"
        what = "output layer" if tensor.name == "output.weight" else "tied output layer"
        if name == "MXFP4_MOE" or base == "Q8_0" or self.facts.gguf_arch == mixtures.FALCON:
            return "Q8_0", f"{what}: Q8_0 by the {name} mixture"
        if tensor.shape[-1] % GGML_TYPES[base].elements:
            return "Q8_0", f"{what}: rows of {tensor.shape[-1]} do not fit {base}"
        return "Q6_K", f"{what}: Q6_K by the {name} mixture"

    def _is_expert_tensor(self, role: Role) -> bool:
        """In bailingmoe3 some attention tensors are three-dimensional too."""
        feed_forward = role in (Role.FFN_UP, Role.FFN_GATE, Role.FFN_DOWN)
        return self.facts.gguf_arch != "bailingmoe3" or feed_forward

    def _place(self, name: str, role: Role) -> Place:
        layer, layers = self.seen[role], self.facts.blocks
        self.seen[role] += 1
        if role is Role.ATTENTION_VALUE:
            layers = self.values
        elif self.facts.experts > 1:
            # Several feed-forward tensors of one kind in a block: the counter is no layer.
            layer = max(0, _block_of(name))
        return Place(
            layer=layer,
            layers=layers,
            heads_per_kv_head=self.facts.heads_per_kv_head,
            experts=self.facts.experts,
            has_imatrix=self.has_imatrix,
        )

    def _with_experts(self, role: Role, place: Place) -> str | None:
        """Mixtral's rules; None if the tables decide."""
        if place.experts != EIGHT_EXPERTS:
            return None
        if role in (Role.ATTENTION_VALUE, Role.ATTENTION_KEY):
            return mixtures.EXPERT_ATTENTION
        if role is Role.ATTENTION_OUTPUT and self.facts.gguf_arch != mixtures.FALCON:
            if self.file_type.name in mixtures.EXPERT_ATTENTION_OUTPUT_FILE_TYPES:
                return mixtures.EXPERT_ATTENTION_OUTPUT
            return self.file_type.base_type
        return None

    def _fit(self, tensor: TensorToType, ggml_type: str) -> tuple[str, str]:
        """``ggml_type`` or its fallback if the rows are no multiple of its block, and a note."""
        row = tensor.shape[-1]
        block = GGML_TYPES[ggml_type].elements
        if row % block == 0:
            return ggml_type, ""
        fallback = mixtures.FALLBACKS.get(ggml_type)
        if fallback is None or row % GGML_TYPES[fallback].elements:
            self.without_block.append(tensor.name)
            fallback = "F16"
        return fallback, f"fallback: {row} is not a multiple of {block}, {ggml_type} -> {fallback}"

    def _lacks_imatrix(self, name: str, ggml_type: str) -> bool:
        if self.has_imatrix or mixtures.role_of(name) in (Role.OUTPUT, Role.TOKEN_EMBEDDING):
            return False
        if ggml_type == "Q2_K":
            return self.file_type.name == "Q2_K_S"
        return ggml_type in mixtures.NEEDS_IMATRIX

    def _findings(self) -> list[Finding]:
        findings = list(self.overrides.findings)
        if self.without_imatrix:
            findings.append(
                Finding(
                    field=f"{FIELD}.file_type",
                    reason="GGUF_IMATRIX_REQUIRED",
                    message=f"{len(self.without_imatrix)} tensors, e.g. "
                    f"{quoted(self.without_imatrix[0])}, get a type that needs an importance "
                    f"matrix",
                    remedy="give an importance matrix, or choose a larger file type, e.g. Q2_K "
                    "or IQ3_S",
                    kind="precondition",
                    subjects=tuple(self.without_imatrix[:MAX_SUBJECTS]),
                    subject_count=len(self.without_imatrix),
                )
            )
        if self.without_block:
            findings.append(
                _warning(
                    f"{FIELD}.file_type",
                    "GGUF_ROWS_DO_NOT_FIT",
                    f"{len(self.without_block)} tensors, e.g. {quoted(self.without_block[0])}, "
                    f"have rows that are no multiple of 32 and stay F16",
                    "nothing to do; the file is larger than usual",
                    self.without_block,
                )
            )
        if GGML_TYPES[self.file_type.base_type].elements == 1 and self.overrides:
            findings.append(
                _warning(
                    f"{FIELD}.tensor_types",
                    "GGUF_OVERRIDES_IGNORED",
                    f"overrides have no effect in a {self.file_type.name} file",
                    "choose a quantized file type",
                )
            )
        findings += [
            _warning(
                f"{FIELD}.tensor_types",
                "PATTERN_UNMATCHED",
                f"pattern {quoted(pattern)} is found in no tensor name that an earlier pattern "
                f"left",
                "check the spelling: names look like blk.0.ffn_down.weight",
            )
            for pattern in self.overrides.unused()
        ]
        return findings


def _warning(
    field: str, reason: str, message: str, remedy: str, subjects: Sequence[str] = ()
) -> Finding:
    return Finding(
        severity=Severity.WARNING,
        field=field,
        reason=reason,
        message=message,
        remedy=remedy,
        subjects=tuple(subjects[:MAX_SUBJECTS]),
        subject_count=len(subjects),
    )


def _block_of(name: str) -> int:
    match = re.match(r"blk\.(\d+)\.", name)
    return int(match[1]) if match else -1


def _visit_order(tensor: TensorToType) -> tuple[int, str]:
    return _block_of(tensor.name), tensor.name
