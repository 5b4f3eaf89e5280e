"""`quantd quantize`: the main job."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Annotated, Unpack

import typer

from quantd_server.cli.method_options import MethodOptions, check, method_config, pair
from quantd_server.cli.option_groups import AsJson, option
from quantd_server.cli.server_options import ServerOptions, connect, require_server
from quantd_server.cli.spec_options import JOB, JobOptions, spec_options

if TYPE_CHECKING:
    import quantd


def quantize(
    source: Annotated[
        str, typer.Argument(help="A Hugging Face directory, or an unquantized .gguf file.")
    ],
    method_options: MethodOptions,
    job_options: JobOptions,
    server_options: ServerOptions,
    output: Annotated[
        str | None,
        typer.Argument(help="Default: beside SOURCE, such as SOURCE-Q4_K_M.gguf or SOURCE-nf4."),
    ] = None,
    label: Annotated[
        list[str] | None,
        option("--label", panel=JOB, metavar="KEY=VALUE", help="To find the job by. Repeatable."),
    ] = None,
    detach: Annotated[  # noqa: FBT002 - an option, given by name
        bool, option("--detach", panel=JOB, help="Start the job, print its name and leave.")
    ] = False,
    as_json: AsJson = False,  # noqa: FBT002
) -> None:
    """Quantize a checkpoint.

    Ctrl-C asks the server to cancel the job; a second one leaves at once.

    Examples:
      quantd quantize models/smollm2 --method gguf --type Q4_K_M

      quantd quantize models/smollm2 --method bitsandbytes-4bit --quant-type nf4 --double-quant
    """
    check(method_options)
    options = spec_options(job_options)
    labels = dict(pair(text, "--label", "KEY=VALUE") for text in label or ())
    if detach:
        require_server(server_options, "--detach")
    from quantd_server.cli.follow import follow
    from quantd_server.cli.named_files import named_files, with_absolute_paths
    from quantd_server.cli.paths import absolute, local_paths
    from quantd_server.cli.printing import as_dict, messages, print_json

    source_uri = absolute(source)
    # The name of the result may depend on what the server makes of --config; its place does not.
    place = absolute(output) if output is not None else source_uri
    reads = local_paths(source_uri, *named_files(method_options), *job_options.reads)
    with connect(server_options, reads=reads, writes=local_paths(place)) as client:
        method = with_absolute_paths(method_config(method_options, client))
        output_uri = output_for(source_uri, output, method)
        begin = client.quantize if as_json else functools.partial(start, client)
        stream = begin(source_uri, output_uri, method, labels=labels, **options)
        if detach:
            if as_json:
                print_json(as_dict(stream.job))
            else:
                print(stream.name)
            return
        if not as_json:
            messages().print(f"{stream.name}: {source_uri} to {output_uri}", soft_wrap=True)
        follow(stream, as_json=as_json)


def output_for(source_uri: str, output: str | None, method: quantd.MethodConfig) -> str:
    """URI of the output, said or derived."""
    from quantd_server.cli.paths import absolute, default_output

    return absolute(output) if output is not None else default_output(source_uri, method)


def start(
    client: quantd.Client,
    source_uri: str,
    output_uri: str,
    method: quantd.MethodConfig,
    *,
    labels: dict[str, str],
    **options: Unpack[quantd.SpecOptions],
) -> quantd.JobStream:
    """Starts the job, printing everything that stands against it.

    Raises:
        CommandEndedError: It was refused; the findings of its plan were printed.
        QuantdError: It was refused for a reason that no plan tells.
    """
    import quantd
    from quantd_server.cli.findings import refuse

    try:
        return client.quantize(source_uri, output_uri, method, labels=labels, **options)
    except (quantd.InvalidArgumentError, quantd.FailedPreconditionError) as error:
        # The details of an error are cut to what fits into its trailers; the plan has everything.
        with contextlib.suppress(quantd.QuantdError):
            answer = client.plan(source_uri, method, output=output_uri, tensors=False, **options)
            if not answer.executable:
                refuse(answer.findings)
        raise error from None
