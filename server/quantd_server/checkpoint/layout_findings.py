"""What is odd about the tensors of a Hugging Face checkpoint, whatever is to be done with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from quantd_server.checkpoint.layout import ModelLayout
from quantd_server.errors import Finding, Severity

_GENERATES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""Ends of the names of classes that have an output head; encoders rightly have none."""


def layout_findings(config: Mapping[str, Any], layout: ModelLayout) -> Iterator[Finding]:
    """What a loader would have to make up: transformers fills it with random weights."""
    if _generates(config) and layout.output_head is None and not layout.tied_embeddings:
        yield _finding(
            "OUTPUT_HEAD_MISSING",
            "the checkpoint holds no output head (lm_head), and its config.json does not tie it to "
            "the token embeddings: a loader would start with a random one",
            "complete the checkpoint, or set tie_word_embeddings if the model is tied",
        )
    if layout.declared_blocks is not None and layout.blocks < layout.declared_blocks:
        yield _finding(
            "BLOCKS_MISSING",
            f"config.json announces {layout.declared_blocks} decoder blocks, but tensors of "
            f"{layout.blocks} were found",
            "complete the checkpoint, or correct the number in config.json",
        )


def _generates(config: Mapping[str, Any]) -> bool:
    architectures = config.get("architectures")
    if not isinstance(architectures, list):
        return False
    return any(isinstance(name, str) and name.endswith(_GENERATES) for name in architectures)


def _finding(reason: str, message: str, remedy: str) -> Finding:
    return Finding(
        severity=Severity.WARNING,
        field="spec.source_uri",
        reason=reason,
        message=message,
        remedy=remedy,
        kind="precondition",
    )
