"""Options of `quantize` and `plan` that are none of the method's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from quantd_server.cli.option_groups import option

if TYPE_CHECKING:
    import quantd

JOB = "Job"
CALIBRATION = "Calibration data, for gptq, awq and aqlm"
EVALUATION = "Measuring the result, for gptq, awq and aqlm"


@dataclass(frozen=True)
class JobOptions:
    """Everything else that decides what a job computes."""

    max_shard_size: Annotated[
        str | None,
        option(
            "--max-shard-size",
            panel=JOB,
            metavar="SIZE",
            help='Largest safetensors file: "2GB", "500MiB". Default 5GB.',
        ),
    ] = None
    device: Annotated[
        str | None,
        option("--device", panel=JOB, help="cpu, cuda, ... Default: the server chooses."),
    ] = None
    serve_target: Annotated[
        list[str] | None,
        option(
            "--serve-target",
            panel=JOB,
            metavar="ENGINE[:CAPABILITY]",
            help="Check that it will run there: transformers, llama.cpp, vllm:8.6, ... Repeatable.",
        ),
    ] = None
    allow_non_finite: Annotated[
        bool,
        option(
            "--allow-non-finite", panel=JOB, help="Let weights through that are NaN or infinite."
        ),
    ] = False
    calibration_file: Annotated[
        str | None,
        option(
            "--calibration-file",
            panel=CALIBRATION,
            metavar="FILE",
            help="A .txt or .jsonl file. Default: the server's own text.",
        ),
    ] = None
    calibration_samples: Annotated[
        int | None,
        option("--calibration-samples", panel=CALIBRATION, help="Sequences. Default 128."),
    ] = None
    calibration_length: Annotated[
        int | None,
        option("--calibration-length", panel=CALIBRATION, help="Tokens in one. Default 512."),
    ] = None
    calibration_seed: Annotated[
        int | None, option("--calibration-seed", panel=CALIBRATION, help="Seed of the choice.")
    ] = None
    calibration_field: Annotated[
        str | None,
        option(
            "--calibration-field",
            panel=CALIBRATION,
            metavar="NAME",
            help="Field of a JSON line. Default text, with --calibration-chat messages.",
        ),
    ] = None
    calibration_packing: Annotated[
        str | None,
        option(
            "--calibration-packing",
            panel=CALIBRATION,
            metavar="PACKING",
            help="concatenate (default), or truncate: one sequence a text.",
        ),
    ] = None
    calibration_chat: Annotated[
        bool,
        option("--calibration-chat", panel=CALIBRATION, help="Apply the model's chat template."),
    ] = False
    evaluate: Annotated[
        bool,
        option("--evaluate", panel=EVALUATION, help="Measure perplexity before and after."),
    ] = False
    evaluation_file: Annotated[
        str | None,
        option(
            "--evaluation-file",
            panel=EVALUATION,
            metavar="FILE",
            help="A .txt or .jsonl file to measure on. Default: the server's own text.",
        ),
    ] = None
    evaluation_samples: Annotated[
        int | None, option("--evaluation-samples", panel=EVALUATION, help="Sequences. Default 8.")
    ] = None

    @property
    def reads(self) -> tuple[str, ...]:
        """URIs of further files that the server reads."""
        from quantd_server.cli.paths import absolute

        files = (self.calibration_file, self.evaluation_file)
        return tuple(absolute(file) for file in files if file is not None)


def spec_options(options: JobOptions) -> quantd.SpecOptions:
    """What `Client.plan` and `Client.quantize` take.

    Raises:
        typer.BadParameter: A value is not understood.
    """
    import quantd

    try:
        return quantd.SpecOptions(
            calibration=_calibration(options),
            evaluation=_evaluation(options),
            max_shard_size=_bytes(options.max_shard_size),
            device=options.device,
            serve_targets=[quantd.serve_target(target) for target in options.serve_target or ()],
            allow_non_finite=options.allow_non_finite,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _bytes(size: str | None) -> int | None:
    import quantd

    return None if size is None else quantd.size_in_bytes(size, "--max-shard-size")


def _calibration(options: JobOptions) -> quantd.v1.CalibrationConfig | None:
    import quantd
    from quantd_server.cli.paths import absolute

    config = quantd.calibration(
        file=None if options.calibration_file is None else absolute(options.calibration_file),
        json_field=options.calibration_field,
        num_samples=options.calibration_samples,
        sequence_length=options.calibration_length,
        seed=options.calibration_seed,
        packing=options.calibration_packing,
        apply_chat_template=options.calibration_chat or None,
    )
    return config if config.ListFields() else None


def _evaluation(options: JobOptions) -> quantd.v1.EvaluationConfig | None:
    import quantd
    from quantd_server.cli.paths import absolute

    config = quantd.evaluation(
        file=None if options.evaluation_file is None else absolute(options.evaluation_file),
        num_samples=options.evaluation_samples,
    )
    return config if options.evaluate or config.ListFields() else None
