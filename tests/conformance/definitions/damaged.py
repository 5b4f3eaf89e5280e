"""Checkpoints that are not read: each has its own reason, and is told before any weight is."""

from __future__ import annotations

from tests.checkpoint import gguf_attacks, safetensors_attacks
from tests.conformance.definitions.writing import (
    INSPECT,
    NF4,
    NOT_FOUND,
    PLAN,
    PRECONDITION,
    refused,
    spec,
    vector,
)
from tests.conformance.vector import Step, Vector


def not_read(source: str, reason: str, code: str = PRECONDITION) -> list[Step]:
    """Inspecting and planning fail for the same reason."""
    fields = [] if code == NOT_FOUND else ["source_uri"]
    return [
        refused(INSPECT, {"sourceUri": f"${{sources}}/{source}"}, code, reason, *fields),
        refused(
            PLAN, {"spec": spec(source, NF4)}, code, reason, *(f"spec.{name}" for name in fields)
        ),
    ]


FOLDERS = {
    "config-broken": "JSON_INVALID",
    "config-list": "JSON_NOT_AN_OBJECT",
    "config-huge": "FILE_TOO_LARGE",
    "config-without-type": "MODEL_TYPE_MISSING",
    "config-odd": "CONFIG_INVALID",
    "adapter": "ADAPTER_ONLY",
    "pickles": "PICKLE_ONLY",
    "only-gguf": "GGUF_IN_FOLDER",
    "pipe": "NOT_A_REGULAR_FILE",
    "leading-out": "PATH_ESCAPES_CHECKPOINT",
    "index-leading-out": "PATH_ESCAPES_CHECKPOINT",
    "index-odd": "INDEX_INVALID",
    "tensor-missing": "TENSOR_MISSING",
    "tensor-twice": "TENSOR_IN_TWO_FILES",
    "crowded": "FOLDER_TOO_LARGE",
    "notes.txt": "SOURCE_KIND_UNKNOWN",
    "complex": "HEADER_TOO_COMPLEX",
    "elements.gguf": "TOO_MANY_ELEMENTS",
    "nameless.gguf": "ARCHITECTURE_MISSING",
    "split.gguf": "GGUF_SPLIT",
    "weightless.gguf": "NO_WEIGHTS",
}

INCOMPLETE = {
    "config-missing": "CONFIG_MISSING",
    "dangling": "FILE_NOT_FOUND",
    "no-weights": "NO_WEIGHTS",
    "index-missing": "INDEX_MISSING",
    "shard-missing": "SHARD_MISSING",
    "nothing": "SOURCE_NOT_FOUND",
    "nothing.gguf": "SOURCE_NOT_FOUND",
}

PRIVATE = {"unreadable": "FILE_UNREADABLE", "locked": "FOLDER_UNREADABLE"}


def first_of_each(attacks: dict[str, tuple[str, bytes]]) -> dict[str, str]:
    """The first two attacks with each reason."""
    chosen: dict[str, str] = {}
    for name, (reason, _) in attacks.items():
        if list(chosen.values()).count(reason) < 2:
            chosen[name] = reason
    return chosen


VECTORS: list[Vector] = [
    *(vector(f"damaged/{source}", *not_read(source, reason)) for source, reason in FOLDERS.items()),
    *(
        vector(f"damaged/{source}", *not_read(source, reason, NOT_FOUND))
        for source, reason in INCOMPLETE.items()
    ),
    *(
        vector(f"damaged/{source}", *not_read(source, reason), needs="unprivileged")
        for source, reason in PRIVATE.items()
    ),
    *(
        vector(f"safetensors/{name}", *not_read(f"safetensors-{name}", reason))
        for name, reason in first_of_each(safetensors_attacks.ATTACKS).items()
    ),
    *(
        vector(f"gguf-header/{name}", *not_read(f"{name}.gguf", reason))
        for name, reason in first_of_each(gguf_attacks.ATTACKS).items()
    ),
]
