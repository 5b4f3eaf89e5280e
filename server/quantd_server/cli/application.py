"""The command `quantd` and its subcommands."""

from __future__ import annotations

from typing import Annotated

import typer

from quantd_server.cli.capabilities import capabilities
from quantd_server.cli.exit_codes import EXPLANATION, ends_with_exit_code
from quantd_server.cli.inspect import inspect
from quantd_server.cli.jobs import jobs
from quantd_server.cli.option_groups import with_option_groups
from quantd_server.cli.plan import plan
from quantd_server.cli.quantize import quantize
from quantd_server.cli.serve import serve
from quantd_server.cli.token import token

application = typer.Typer(
    name="quantd",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXPLANATION.replace("\n", " "),
)


def _print_version(asked: bool) -> None:  # noqa: FBT001 - typer's signature
    if asked:
        from quantd_server.host.packages import installed_version

        print(f"quantd {installed_version('quantd') or '(not installed)'}")
        raise typer.Exit


@application.callback()
def quantd(
    version: Annotated[  # noqa: FBT002 - acts through its callback
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Quantize language-model checkpoints, and know beforehand whether it will work."""


application.command()(serve)
for _command in (quantize, plan, inspect, capabilities):
    application.command(epilog=EXPLANATION.replace("\n", " "))(
        ends_with_exit_code(with_option_groups(_command))
    )
application.add_typer(jobs, name="jobs")
application.add_typer(token, name="token")
