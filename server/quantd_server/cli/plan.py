"""`quantd plan`: what `quantize` would do, and everything that stands against it."""

from __future__ import annotations

from typing import Annotated

import typer

from quantd_server.cli.exit_codes import REFUSED, CommandEndedError
from quantd_server.cli.method_options import MethodOptions, check, method_config
from quantd_server.cli.option_groups import AsJson
from quantd_server.cli.server_options import ServerOptions, connect
from quantd_server.cli.spec_options import JobOptions, spec_options


def plan(
    source: Annotated[
        str, typer.Argument(help="A Hugging Face directory, or an unquantized .gguf file.")
    ],
    method_options: MethodOptions,
    job_options: JobOptions,
    server_options: ServerOptions,
    output: Annotated[
        str | None, typer.Argument(help="Default: where `quantd quantize` would put it.")
    ] = None,
    tensors: Annotated[  # noqa: FBT002 - an option, given by name
        bool, typer.Option("--tensors", help="List what happens to every tensor.")
    ] = False,
    as_json: AsJson = False,  # noqa: FBT002
) -> None:
    """Say what `quantize` would do, from the headers alone: types, sizes, memory, findings.

    Ends with 3 when `quantize` would refuse it.
    """
    check(method_options)
    options = spec_options(job_options)
    from quantd_server.cli.named_files import named_files, with_absolute_paths
    from quantd_server.cli.paths import absolute, local_paths
    from quantd_server.cli.quantize import output_for

    source_uri = absolute(source)
    place = absolute(output) if output is not None else source_uri
    reads = local_paths(source_uri, *named_files(method_options), *job_options.reads)
    with connect(server_options, reads=reads, writes=local_paths(place)) as client:
        method = with_absolute_paths(method_config(method_options, client))
        output_uri = output_for(source_uri, output, method)
        answer = client.plan(source_uri, method, output=output_uri, tensors=tensors, **options)
    if as_json:
        from quantd_server.cli.printing import as_dict, print_json

        print_json(as_dict(answer))
    else:
        from quantd_server.cli.findings import print_findings
        from quantd_server.cli.printing import results
        from quantd_server.cli.tables import plan_facts, plan_tensor_table, type_table

        console = results()
        if answer.plan.parameter_count:
            for part in (plan_facts(answer.plan), type_table(answer.plan.types)):
                console.print(part)
                console.print()
        if answer.tensors:
            console.print(plan_tensor_table(answer.tensors))
            console.print()
        print_findings(answer.findings, console)
        console.print("[green]executable[/]" if answer.executable else "[bold red]refused[/]")
    if not answer.executable:
        raise CommandEndedError(REFUSED)
