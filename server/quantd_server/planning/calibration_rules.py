"""What a job calibrates with and is measured on: defaults, files, counts, and what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from quantd_server.calibration.config import (
    CalibrationConfig,
    CalibrationUsage,
    EvaluationConfig,
)
from quantd_server.calibration.data import TokenData, read_calibration, read_evaluation
from quantd_server.calibration.resolution import resolve_calibration, resolve_evaluation
from quantd_server.checkpoint.opening import Checkpoint
from quantd_server.engine.specification import QuantizationSpec
from quantd_server.errors import Finding, QuantdError, Severity, quoted
from quantd_server.planning.inspection import describe
from quantd_server.planning.roots import Roots

DataConfig = TypeVar("DataConfig", CalibrationConfig, EvaluationConfig)


class DataPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a job."""

    spec: QuantizationSpec
    """With the defaults of `calibration` and `evaluation` filled in."""
    usage: CalibrationUsage | None = None
    """Of the calibration data; None for a method that needs none."""
    evaluation_usage: CalibrationUsage | None = None
    """Of the text to measure on, if that is asked for."""
    paths: dict[str, str] = {}
    """Real path of each file by its URI."""
    findings: tuple[Finding, ...] = ()


def plan_data(
    spec: QuantizationSpec, checkpoint: Checkpoint, roots: Roots, *, calibrated: bool
) -> DataPlan:
    """The data of ``spec``. Reads the tokenizer of the checkpoint and the texts, and counts.

    ``calibrated``: whether the method needs calibration data; the others ignore what is given.
    """
    if not calibrated:
        return DataPlan(spec=spec, findings=tuple(_ignored(spec)))
    model = describe("", checkpoint, None)
    calibration = resolve_calibration(spec.calibration, model.context_length)
    reading = _Reading(checkpoint.directory, roots, model.context_length, model.vocab_size)
    data = reading.read("spec.calibration", calibration, read_calibration)
    evaluation, measured = spec.evaluation, None
    if evaluation is not None:
        evaluation = resolve_evaluation(evaluation, model.context_length)
        measured = reading.read("spec.evaluation", evaluation, read_evaluation)
    return DataPlan(
        spec=msgspec.structs.replace(spec, calibration=calibration, evaluation=evaluation),
        usage=data.usage if data else _nothing(calibration),
        evaluation_usage=measured.usage if measured else None,
        paths=reading.paths,
        findings=(*_noticed(spec), *reading.findings),
    )


class _Reading:
    """Reads data of a job, and keeps what was found."""

    def __init__(self, folder: Path, roots: Roots, context_length: int, vocabulary: int) -> None:
        self._folder = folder
        self._roots = roots
        self._context_length = context_length
        self._vocabulary = vocabulary
        self.paths: dict[str, str] = {}
        self.findings: list[Finding] = []

    def read(
        self,
        field: str,
        config: DataConfig,
        read: Callable[[DataConfig, Path, Mapping[str, str]], TokenData],
    ) -> TokenData | None:
        """The data of ``config``, or None when a finding says why there is none."""
        self.findings += self._context_findings(field, config)
        try:
            if config.file is not None:
                uri = config.file.uri
                self.paths[uri] = str(self._roots.source(uri, f"{field}.file.uri"))
            data = read(config, self._folder, self.paths)
        except QuantdError as error:
            self.findings.append(error.finding)
            return None
        self.findings += data.findings
        self.findings += self._vocabulary_findings(field, config, data)
        return data

    def _context_findings(
        self, field: str, config: CalibrationConfig | EvaluationConfig
    ) -> Iterator[Finding]:
        length = config.sequence_length or 0
        if config.tokens is not None:
            length = max(len(sequence.ids) for sequence in config.tokens.sequences)
        if 0 < self._context_length < length:
            place = "sequence_length" if config.tokens is None else "tokens"
            yield Finding(
                severity=Severity.ERROR,
                field=f"{field}.{place}",
                reason="SEQUENCE_TOO_LONG",
                message=f"sequences of {length} tokens are longer than the model's context of "
                f"{self._context_length}",
                remedy=f"use at most {self._context_length} tokens a sequence",
            )

    def _vocabulary_findings(
        self, field: str, config: CalibrationConfig | EvaluationConfig, data: TokenData
    ) -> Iterator[Finding]:
        largest = max(map(max, data.sequences))
        if not 0 < self._vocabulary <= largest:
            return
        given = config.tokens is not None
        yield Finding(
            severity=Severity.ERROR,
            field=f"{field}.tokens" if given else "spec.source_uri",
            reason="TOKEN_BEYOND_VOCABULARY",
            message=f"{'' if given else 'the tokenizer gives '}token {largest}"
            f"{' is not in' if given else ', which is not in'} the model's vocabulary of "
            f"{self._vocabulary}",
            remedy="use the tokenizer of this model"
            if given
            else "restore the tokenizer files from where the checkpoint came from",
            kind="invalid" if given else "precondition",
        )


def _nothing(config: CalibrationConfig) -> CalibrationUsage:
    return CalibrationUsage(samples_requested=config.num_samples or 0, samples_usable=0, tokens=0)


def _noticed(spec: QuantizationSpec) -> Iterator[Finding]:
    given = spec.calibration or CalibrationConfig()
    if not (given.texts or given.tokens or given.file or given.builtin):
        yield Finding(
            severity=Severity.INFO,
            field="spec.calibration",
            reason="BUILTIN_TEXT_USED",
            message="no calibration data is given; the small text that comes with the server is "
            "used",
            remedy="give text like that the model will see, or set calibration.builtin to say "
            "that this one is meant",
        )
    measured = spec.evaluation.file if spec.evaluation else None
    if given.file and measured and given.file.uri == measured.uri:
        yield Finding(
            severity=Severity.WARNING,
            field="spec.evaluation.file.uri",
            reason="EVALUATION_ON_CALIBRATION_TEXT",
            message=f"{quoted(measured.uri)} is the calibration data too: the result is measured "
            "on text that it was fitted to",
            remedy="name another file, or leave evaluation.file out",
        )


def _ignored(spec: QuantizationSpec) -> Iterator[Finding]:
    if spec.calibration is not None:
        yield _unused("CALIBRATION_IGNORED", "calibration", "needs no calibration data")
    if spec.evaluation is not None:
        yield _unused("EVALUATION_IGNORED", "evaluation", "is not measured at the end")


def _unused(reason: str, name: str, why: str) -> Finding:
    return Finding(
        severity=Severity.INFO,
        field=f"spec.{name}",
        reason=reason,
        message=f"the method {why}; what was given is not used",
        remedy=f"leave {name} out",
    )
