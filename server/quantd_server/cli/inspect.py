"""`quantd inspect`: what a checkpoint's headers say."""

from __future__ import annotations

from typing import Annotated

import typer

from quantd_server.cli.option_groups import AsJson
from quantd_server.cli.server_options import ServerOptions, connect


def inspect(
    source: Annotated[str, typer.Argument(help="A Hugging Face directory or a .gguf file.")],
    server_options: ServerOptions,
    tensors: Annotated[  # noqa: FBT002 - an option, given by name
        bool, typer.Option("--tensors", help="List every tensor.")
    ] = False,
    context_length: Annotated[
        int | None,
        typer.Option(
            "--context-length",
            help="Tokens to size the key/value cache for; the model's own, at most 8192.",
        ),
    ] = None,
    as_json: AsJson = False,  # noqa: FBT002
) -> None:
    """Describe a checkpoint from its headers."""
    from quantd_server.cli.paths import absolute, local_paths

    source_uri = absolute(source)
    with connect(server_options, reads=local_paths(source_uri)) as client:
        answer = client.inspect(source_uri, tensors=tensors, context_length=context_length)
    if as_json:
        from quantd_server.cli.printing import as_dict, print_json

        print_json(as_dict(answer))
        return
    from quantd_server.cli import tables
    from quantd_server.cli.findings import print_findings, print_load_findings
    from quantd_server.cli.printing import results

    console = results()
    parts = [
        tables.checkpoint_facts(answer.checkpoint),
        tables.dtype_table(answer.checkpoint.dtypes),
    ]
    if answer.loads:
        parts.append(tables.load_table(answer.loads))
    if answer.tensors:
        parts.append(tables.tensor_table(answer.tensors))
    for part in parts:
        console.print(part)
        console.print()
    print_findings(answer.findings, console)
    print_load_findings(answer.loads, console)
