"""What planning finds about the way of a checkpoint into a .gguf file."""

from __future__ import annotations

from tests.conformance.definitions.methods import stopped, warned
from tests.conformance.definitions.plans import found
from tests.conformance.definitions.writing import (
    PLAN,
    PRECONDITION,
    finding,
    gguf,
    refused,
    spec,
    vector,
)
from tests.conformance.vector import Step, Vector

ERRORS = {
    "mamba": "GGUF_ARCHITECTURE_UNSUPPORTED",
    "gelu": "GGUF_FEATURE_UNSUPPORTED",
    "text-sizes": "CONFIG_FIELD_INVALID",
    "other-sizes": "GGUF_TENSOR_SHAPE_MISMATCH",
    "head-missing": "GGUF_TENSOR_MISSING",
    "unmapped": "GGUF_TENSOR_UNMAPPED",
    "eight-bit-floats": "GGUF_SOURCE_DTYPE_UNSUPPORTED",
    "no-tokenizer": "TOKENIZER_MISSING",
    "tokenizer-broken": "JSON_NOT_AN_OBJECT",
    "tokenizer-splits": "TOKENIZER_PRETOKENIZER_UNKNOWN",
    "tokenizer-word-piece": "TOKENIZER_MODEL_UNSUPPORTED",
    "tokenizer-nameless": "TOKENIZER_SPECIAL_TOKEN_MISSING",
    "tokenizer-twice": "TOKENIZER_DUPLICATE_TOKENS",
    "tokenizer-bytes": "TOKENIZER_BYTE_TOKENS_MISSING",
}
"""By source, as Q8_0."""

WARNINGS = {
    "sliding": "GGUF_SLIDING_WINDOW_IGNORED",
    "narrow-rows": "GGUF_ROWS_DO_NOT_FIT",
    "tokenizer-normalizes": "TOKENIZER_NORMALIZATION_IGNORED",
    "tokenizer-strips": "TOKENIZER_STRIPPING_IGNORED",
    "tokenizer-more": "TOKENIZER_TOKENS_WITHOUT_ROW",
    "tokenizer-template": "TOKENIZER_TEMPLATE_UNKNOWN",
    "tokenizer-merges": "TOKENIZER_MERGES_APPROXIMATED",
}

MATRICES = {
    "no.imatrix": refused(
        PLAN,
        {"spec": spec("tiny", gguf("Q8_0", imatrixUri="${sources}/no.imatrix"))},
        PRECONDITION,
        "IMATRIX_INVALID",
        "spec.method.gguf.imatrix_uri",
    ),
    "some.imatrix": warned(
        "tiny", gguf("Q4_0", imatrixUri="${sources}/some.imatrix"), "IMATRIX_INCOMPLETE"
    ),
    "short.imatrix": stopped(
        "tiny", gguf("Q4_0", imatrixUri="${sources}/short.imatrix"), "IMATRIX_SIZE_MISMATCH"
    ),
}

OTHERS: dict[str, Step] = {
    "type-fallback": warned("tiny", gguf("Q4_K_M"), "GGUF_TYPE_FALLBACK"),
    "imatrix-required": stopped("wide", gguf("Q2_K_S"), "GGUF_IMATRIX_REQUIRED"),
    "overrides-ignored": warned(
        "tiny",
        gguf("F16", tensorTypes=[{"pattern": "attn_v", "type": "GGML_TYPE_Q8_0"}]),
        "GGUF_OVERRIDES_IGNORED",
    ),
    "space-prefix": found(
        "tokenizer-first", gguf("Q8_0"), finding("INFO", "TOKENIZER_SPACE_PREFIX_DIFFERS")
    ),
}

VECTORS: list[Vector] = [
    *(
        vector(f"conversion/{source}", stopped(source, gguf("Q8_0"), reason))
        for source, reason in ERRORS.items()
    ),
    *(
        vector(f"conversion/{source}", warned(source, gguf("Q8_0"), reason))
        for source, reason in WARNINGS.items()
    ),
    *(vector(f"conversion/{name}", step) for name, step in {**MATRICES, **OTHERS}.items()),
]
