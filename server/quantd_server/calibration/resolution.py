"""The defaults of calibration and evaluation data."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from quantd_server.calibration.config import (
    CalibrationBuiltin,
    CalibrationConfig,
    EvaluationConfig,
)

CALIBRATION_SAMPLES = 128
EVALUATION_SAMPLES = 8
SEQUENCE_LENGTH = 512
MIN_SEQUENCE_LENGTH = 8
"""As the spec says."""

DataConfig = TypeVar("DataConfig", CalibrationConfig, EvaluationConfig)


def resolve_calibration(config: CalibrationConfig | None, context_length: int) -> CalibrationConfig:
    """``config`` with every default filled in. ``context_length`` is 0 when it is not known."""
    config = _resolve(config or CalibrationConfig(), CALIBRATION_SAMPLES, context_length)
    return msgspec.structs.replace(
        config,
        seed=config.seed or 0,
        packing=config.packing or "CONCATENATE",
        apply_chat_template=config.apply_chat_template or False,
    )


def resolve_evaluation(config: EvaluationConfig, context_length: int) -> EvaluationConfig:
    """``config`` with every default filled in."""
    return _resolve(config, EVALUATION_SAMPLES, context_length)


def _resolve(config: DataConfig, samples: int, context_length: int) -> DataConfig:
    length = min(SEQUENCE_LENGTH, context_length or SEQUENCE_LENGTH)
    builtin = config.builtin
    if config.tokens is not None:
        # They are used as they are: all of them, and each as long as it is.
        samples = len(config.tokens.sequences)
        length = max(len(sequence.ids) for sequence in config.tokens.sequences)
    elif config.texts is None and config.file is None:
        builtin = CalibrationBuiltin()
    return msgspec.structs.replace(
        config,
        builtin=builtin,
        num_samples=config.num_samples or samples,
        sequence_length=config.sequence_length or max(length, MIN_SEQUENCE_LENGTH),
    )
