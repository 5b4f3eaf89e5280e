"""`quantd jobs`: the jobs of a server."""

from __future__ import annotations

from typing import Annotated

import typer

from quantd_server.cli.exit_codes import ends_with_exit_code
from quantd_server.cli.method_options import pair
from quantd_server.cli.option_groups import AsJson, with_option_groups
from quantd_server.cli.server_options import ServerOptions, connect, require_server

jobs = typer.Typer(no_args_is_help=True, help="Look after the jobs of a server.")

Name = Annotated[str, typer.Argument(help='"jobs/{id}", or the id alone.')]


def list_jobs(
    server_options: ServerOptions,
    state: Annotated[
        list[str] | None, typer.Option("--state", help="States to include. Repeatable.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option("--method", help="Methods to include. Repeatable.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="KEY=VALUE", help="Labels a job must have. Repeatable."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most jobs to list.")] = 100,
    as_json: AsJson = False,  # noqa: FBT002 - an option, given by name
) -> None:
    """List jobs, the newest first."""
    require_server(server_options, "`quantd jobs`")
    from itertools import islice

    labels = dict(pair(text, "--label", "KEY=VALUE") for text in label or ())
    with connect(server_options) as client:
        try:
            listing = client.jobs(states=state or (), methods=method or (), labels=labels)
            found = list(islice(listing, limit))
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    if as_json:
        from quantd_server.cli.printing import as_dict, print_json

        for job in found:
            print_json(as_dict(job))
        return
    from quantd_server.cli.printing import messages, results
    from quantd_server.cli.tables import job_table

    if found:
        results().print(job_table(found))
    else:
        messages().print("no jobs")


def show(name: Name, server_options: ServerOptions, as_json: AsJson = False) -> None:  # noqa: FBT002
    """Show a job as it is now."""
    require_server(server_options, "`quantd jobs`")
    with connect(server_options) as client:
        job = client.job(full_name(name))
    from quantd_server.cli.printing import as_dict, print_json, results

    if as_json:
        print_json(as_dict(job))
        return
    from quantd_server.cli.job_page import print_job

    print_job(job, results())


def watch(
    name: Name,
    server_options: ServerOptions,
    after_sequence: Annotated[
        int, typer.Option("--after-sequence", min=0, help="Sequence of the last event seen.")
    ] = 0,
    as_json: AsJson = False,  # noqa: FBT002
) -> None:
    """Follow a job to its end. Ctrl-C leaves; the job goes on."""
    require_server(server_options, "`quantd jobs`")
    from quantd_server.cli.follow import follow

    with connect(server_options) as client:
        stream = client.watch(full_name(name), after_sequence)
        follow(stream, as_json=as_json, cancel_on_interrupt=False)


def cancel(
    name: Name,
    server_options: ServerOptions,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")] = "",
    as_json: AsJson = False,  # noqa: FBT002
) -> None:
    """Ask a job to stop. It leaves nothing behind."""
    require_server(server_options, "`quantd jobs`")
    with connect(server_options) as client:
        job = client.cancel(full_name(name), reason)
    from quantd_server.cli.printing import as_dict, print_json, results

    if as_json:
        print_json(as_dict(job))
        return
    from quantd_server.cli.tables import state

    results().print(f"{job.name} {state(job)}")


def delete(
    name: Name,
    server_options: ServerOptions,
    delete_output: Annotated[  # noqa: FBT002
        bool, typer.Option("--delete-output", help="Delete what it wrote, too.")
    ] = False,
) -> None:
    """Forget a finished job."""
    require_server(server_options, "`quantd jobs`")
    with connect(server_options) as client:
        client.delete(full_name(name), delete_output=delete_output)


def full_name(name: str) -> str:
    """The name of a job from its name or its id."""
    return name if name.startswith("jobs/") else f"jobs/{name}"


for _command in (list_jobs, show, watch, cancel, delete):
    _name = "list" if _command is list_jobs else _command.__name__
    jobs.command(_name)(ends_with_exit_code(with_option_groups(_command)))
