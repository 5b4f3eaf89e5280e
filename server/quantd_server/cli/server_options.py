"""Which server a command talks to."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantd_server.cli.exit_codes import (
    JOB_FAILED,
    UNREACHABLE,
    ServerUnreachableError,
    code_of,
)
from quantd_server.cli.option_groups import option

if TYPE_CHECKING:
    import quantd
    from quantd_server.cli.private_server import PrivateServer

PANEL = "Server"
CONNECT_TIMEOUT = 5.0
"""Seconds a server that was named may take to answer."""


@dataclass(frozen=True)
class ServerOptions:
    """How to reach a server."""

    server: Annotated[
        str | None,
        option(
            "--server",
            panel=PANEL,
            envvar="QUANTD_SERVER",
            metavar="ADDRESS",
            help='"host:port" or "unix:/path". Without it, a private server runs for this command.',
        ),
    ] = None
    token: Annotated[
        str | None,
        option("--token", panel=PANEL, envvar="QUANTD_TOKEN", help="Token of the server."),
    ] = None
    tls: Annotated[bool, option("--tls", panel=PANEL, help="Use TLS.")] = False
    ca_certificate: Annotated[
        Path | None,
        option("--ca-certificate", panel=PANEL, help="PEM of the authority to trust; implies TLS."),
    ] = None
    client_certificate: Annotated[
        Path | None,
        option("--client-certificate", panel=PANEL, help="PEM of our certificate chain."),
    ] = None
    client_key: Annotated[
        Path | None, option("--client-key", panel=PANEL, help="PEM of our private key.")
    ] = None


@contextlib.contextmanager
def connect(
    options: ServerOptions, *, reads: tuple[str, ...] = (), writes: tuple[str, ...] = ()
) -> Iterator[quantd.Client]:
    """A client of the server that was named, or of a private one.

    Args:
        options: Which server.
        reads: Paths a private server has to read.
        writes: Paths a private server has to write.

    Yields:
        The client.

    Raises:
        ServerUnreachableError: No server answers.
    """
    from quantd_server.cli.private_server import private_server

    if options.server is not None:
        with _client(options, options.server) as client:
            client.wait_until_serving(CONNECT_TIMEOUT)
            yield client
        return
    with (
        private_server(reads=reads, writes=writes) as server,
        _keeping_its_log(server),
        _client(options, server.address) as client,
    ):
        yield client


@contextlib.contextmanager
def _keeping_its_log(server: PrivateServer) -> Iterator[None]:
    """Keeps the log when it may say more than the error."""
    try:
        yield
    except Exception as error:
        if code_of(error) in (JOB_FAILED, UNREACHABLE):
            print(f"quantd: the log of the server is in {server.keep_log()}", file=sys.stderr)
        raise


def require_server(options: ServerOptions, what: str) -> None:
    """Refuses to start a private server where it would make no sense.

    Raises:
        ServerUnreachableError: None was named.
    """
    if options.server is None:
        raise ServerUnreachableError(
            f"{what} needs a server that stays: name one with --server or QUANTD_SERVER "
            "(start it with `quantd serve`)"
        )


def _client(options: ServerOptions, address: str) -> quantd.Client:
    import quantd

    if (options.client_certificate is None) != (options.client_key is None):
        raise typer.BadParameter("--client-certificate and --client-key belong together")
    pair = None
    if options.client_certificate is not None and options.client_key is not None:
        pair = (options.client_key, options.client_certificate)
    try:
        return quantd.Client(
            address,
            token=options.token,
            tls=options.tls or None,
            root_certificates=options.ca_certificate,
            client_certificate=pair,
            timeout=120.0,
        )
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
