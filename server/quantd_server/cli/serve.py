"""`quantd serve`: run a server in the foreground."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from quantd_server.errors import QuantdError
from quantd_server.settings import DEFAULT_ADDRESS, LogFormat, LogLevel, Settings

CANNOT_START = 2
DEFAULTS = Settings()

ADDRESSES = "Addresses"
FOLDERS = "Folders"
ACCESS = "Access"
LIMITS = "Limits"
LOGGING = "Log"


def serve(
    *,
    listen: Annotated[
        list[str],
        typer.Option(
            "--listen",
            envvar="QUANTD_LISTEN",
            metavar="ADDRESS",
            help='"host:port" (port 0: any free one) or "unix:/path". Can be repeated.',
            rich_help_panel=ADDRESSES,
        ),
    ] = [DEFAULT_ADDRESS],  # noqa: B006 - typer copies it
    ready_file: Annotated[
        str | None,
        typer.Option(
            "--ready-file",
            envvar="QUANTD_READY_FILE",
            metavar="PATH",
            help="File to write the bound addresses to, one a line, once the server serves.",
            rich_help_panel=ADDRESSES,
        ),
    ] = None,
    metrics_listen: Annotated[
        str | None,
        typer.Option(
            "--metrics-listen",
            envvar="QUANTD_METRICS_LISTEN",
            metavar="ADDRESS",
            help='"host:port" to serve metrics for Prometheus on, to anybody who can reach it.',
            rich_help_panel=ADDRESSES,
        ),
    ] = None,
    tls_certificate: Annotated[
        Path | None,
        typer.Option(
            "--tls-certificate",
            envvar="QUANTD_TLS_CERTIFICATE",
            metavar="FILE",
            help="PEM of the server's certificate chain; calls are encrypted.",
            rich_help_panel=ACCESS,
        ),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(
            "--tls-key",
            envvar="QUANTD_TLS_KEY",
            metavar="FILE",
            help="PEM of its private key.",
            rich_help_panel=ACCESS,
        ),
    ] = None,
    client_ca: Annotated[
        Path | None,
        typer.Option(
            "--client-ca",
            envvar="QUANTD_CLIENT_CA",
            metavar="FILE",
            help="PEM of the authorities that sign the certificates clients must have.",
            rich_help_panel=ACCESS,
        ),
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(
            "--tokens",
            envvar="QUANTD_TOKENS",
            metavar="FILE",
            help="File of the tokens that callers may have; `quantd token new` makes its entries.",
            rich_help_panel=ACCESS,
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            envvar="QUANTD_INSECURE",
            help="Allow addresses beyond this host without credentials or encryption.",
            rich_help_panel=ACCESS,
        ),
    ] = False,
    max_calls_per_second: Annotated[
        float,
        typer.Option(
            min=0,
            max=1_000_000,
            envvar="QUANTD_MAX_CALLS_PER_SECOND",
            help="Calls of one token or certificate; 0: no limit.",
            rich_help_panel=LIMITS,
        ),
    ] = DEFAULTS.max_calls_per_second,
    source_root: Annotated[
        list[Path],
        typer.Option(
            "--source-root",
            envvar="QUANTD_SOURCE_ROOTS",
            metavar="FOLDER",
            help="Folder that checkpoints may be read from. Can be repeated.",
            rich_help_panel=FOLDERS,
        ),
    ] = [Path()],  # noqa: B006
    output_root: Annotated[
        list[Path],
        typer.Option(
            "--output-root",
            envvar="QUANTD_OUTPUT_ROOTS",
            metavar="FOLDER",
            help="Folder that results may be written to. Can be repeated.",
            rich_help_panel=FOLDERS,
        ),
    ] = [Path()],  # noqa: B006
    state: Annotated[
        Path | None,
        typer.Option(
            "--state",
            envvar="QUANTD_STATE",
            metavar="FOLDER",
            help="Folder to keep jobs in, so that they outlive the server. Default: in memory.",
            rich_help_panel=FOLDERS,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            envvar="QUANTD_THREADS",
            help="Threads of one job. Default: all cores this process may use.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    max_running_jobs: Annotated[
        int,
        typer.Option(
            min=1,
            max=1024,
            envvar="QUANTD_MAX_RUNNING_JOBS",
            help="Jobs that run at once.",
            rich_help_panel=LIMITS,
        ),
    ] = DEFAULTS.max_running_jobs,
    max_queued_jobs: Annotated[
        int,
        typer.Option(
            min=1,
            max=100_000,
            envvar="QUANTD_MAX_QUEUED_JOBS",
            help="Jobs that may wait.",
            rich_help_panel=LIMITS,
        ),
    ] = DEFAULTS.max_queued_jobs,
    max_finished_jobs: Annotated[
        int,
        typer.Option(
            min=0,
            max=100_000,
            envvar="QUANTD_MAX_FINISHED_JOBS",
            help="Finished jobs that are remembered.",
            rich_help_panel=LIMITS,
        ),
    ] = DEFAULTS.max_finished_jobs,
    max_events_per_job: Annotated[
        int,
        typer.Option(
            min=2,
            max=10_000_000,
            envvar="QUANTD_MAX_EVENTS_PER_JOB",
            help="Events of a job that are remembered.",
            rich_help_panel=LIMITS,
        ),
    ] = DEFAULTS.max_events_per_job,
    max_request_bytes: Annotated[
        int,
        typer.Option(
            min=1024,
            max=(1 << 31) - 1,
            envvar="QUANTD_MAX_REQUEST_BYTES",
            help="Largest request.",
            rich_help_panel=LIMITS,
        ),
    ] = DEFAULTS.max_request_bytes,
    max_concurrent_calls: Annotated[
        int,
        typer.Option(
            min=1,
            max=1_000_000,
            envvar="QUANTD_MAX_CONCURRENT_CALLS",
            help="Calls and streams served at once.",
            rich_help_panel=LIMITS,
        ),
    ] = DEFAULTS.max_concurrent_calls,
    heartbeat_interval: Annotated[
        float,
        typer.Option(
            min=0.1,
            max=3600,
            envvar="QUANTD_HEARTBEAT_INTERVAL",
            metavar="SECONDS",
            help="Longest silence on a stream of events.",
            rich_help_panel=LIMITS,
        ),
    ] = DEFAULTS.heartbeat_interval,
    grace: Annotated[
        float,
        typer.Option(
            min=0,
            max=3600,
            envvar="QUANTD_GRACE",
            metavar="SECONDS",
            help="How long calls and workers may go on after SIGTERM.",
            rich_help_panel=LIMITS,
        ),
    ] = DEFAULTS.grace,
    log_level: Annotated[
        LogLevel,
        typer.Option(
            envvar="QUANTD_LOG_LEVEL", help="Least level to log.", rich_help_panel=LOGGING
        ),
    ] = DEFAULTS.log_level,
    log_format: Annotated[
        LogFormat,
        typer.Option(
            envvar="QUANTD_LOG_FORMAT",
            help="Lines for programs or for people.",
            rich_help_panel=LOGGING,
        ),
    ] = DEFAULTS.log_format,
) -> None:
    """Run a server until SIGTERM or Ctrl-C.

    Each option can also be set by the environment variable beside it. There, addresses are
    separated by blanks and folders by colons, as in PATH.
    """
    settings = Settings(
        listen=tuple(listen),
        ready_file=ready_file,
        metrics_listen=metrics_listen,
        tls_certificate=_text(tls_certificate),
        tls_key=_text(tls_key),
        client_ca=_text(client_ca),
        tokens=_text(tokens),
        insecure=insecure,
        max_calls_per_second=max_calls_per_second,
        source_roots=tuple(map(str, source_root)),
        output_roots=tuple(map(str, output_root)),
        state_folder=str(state) if state else None,
        threads=threads,
        max_running_jobs=max_running_jobs,
        max_queued_jobs=max_queued_jobs,
        max_finished_jobs=max_finished_jobs,
        max_events_per_job=max_events_per_job,
        max_request_bytes=max_request_bytes,
        max_concurrent_calls=max_concurrent_calls,
        heartbeat_interval=heartbeat_interval,
        grace=grace,
        log_level=log_level,
        log_format=log_format,
    )
    raise typer.Exit(run(settings))


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def run(settings: Settings) -> int:
    """Serve with ``settings``; returns the exit code of the process."""
    # Read when grpc is imported; its core would write lines of its own between ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from quantd_server.api.addresses import BindError
    from quantd_server.api.lifecycle import SettingsError
    from quantd_server.api.lifecycle import serve as serve_until_signal
    from quantd_server.api.log import Log

    log = Log(level=settings.log_level, form=settings.log_format)
    log.capture_standard_logging()
    try:
        asyncio.run(serve_until_signal(settings, log))
    except (BindError, SettingsError) as error:
        print(f"quantd serve: {error}", file=sys.stderr)
        return CANNOT_START
    except QuantdError as error:
        print(f"quantd serve: {error.message} ({error.reason}); {error.remedy}", file=sys.stderr)
        return CANNOT_START
    return 0
