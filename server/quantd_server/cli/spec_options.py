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
        int | None, option("--calibration-seed", panel=CALIBRATION, help="Seed of the order.")
    ] = None

    @property
    def reads(self) -> tuple[str, ...]:
        """URIs of further files that the server reads."""
        from quantd_server.cli.paths import absolute

        return () if self.calibration_file is None else (absolute(self.calibration_file),)


def spec_options(options: JobOptions) -> quantd.SpecOptions:
    """What `Client.plan` and `Client.quantize` take.

    Raises:
        typer.BadParameter: A value is not understood.
    """
    import quantd

    try:
        return quantd.SpecOptions(
            calibration=_calibration(options),
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
    from quantd import v1

    numbers = (options.calibration_samples, options.calibration_length, options.calibration_seed)
    if not options.reads and all(number is None for number in numbers):
        return None
    config = v1.CalibrationConfig(
        num_samples=options.calibration_samples,
        sequence_length=options.calibration_length,
        seed=options.calibration_seed,
    )
    for uri in options.reads:
        config.file.uri = uri
    return config
