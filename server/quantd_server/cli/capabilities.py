"""`quantd capabilities`: what a server and its host can do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from quantd_server.cli.option_groups import AsJson
from quantd_server.cli.server_options import ServerOptions, connect

if TYPE_CHECKING:
    from rich.table import Table

    import quantd
    from quantd import v1

TORCH_PATIENCE = 30.0
"""Seconds that the command waits for a server that is asking torch about a GPU."""


def capabilities(
    server_options: ServerOptions,
    as_json: AsJson = False,  # noqa: FBT002 - an option, given by name
) -> None:
    """Say what a server and its host can do, and what is missing for the rest."""
    with connect(server_options) as client:
        answer = _with_torch(client)
    if as_json:
        from quantd_server.cli.printing import as_dict, print_json

        print_json(as_dict(answer))
        return
    from quantd_server.cli.printing import results

    console = results()
    for part in (_facts(answer), _device_table(answer), _method_table(answer)):
        console.print(part)
        console.print()


def _with_torch(client: quantd.Client) -> v1.GetCapabilitiesResponse:
    """The answer, once the server knows what torch can do with the devices it has."""
    from quantd import v1

    end = time.monotonic() + TORCH_PATIENCE
    while True:
        answer = client.capabilities()
        pending = answer.torch.state == v1.TorchState.TORCH_STATE_PENDING
        if not pending or len(answer.devices) == 1 or time.monotonic() > end:
            return answer
        time.sleep(0.2)


def _facts(answer: v1.GetCapabilitiesResponse) -> Table:
    from quantd_server.cli import tables, text

    host, limits = answer.host, answer.limits
    present = (f"{item.name} {item.version}" for item in answer.packages if item.version)
    absent = (item.name for item in answer.packages if not item.version)
    limit = f", limit {text.size(host.memory_limit_bytes)}" if host.memory_limit_bytes else ""
    memory = f"{text.size(host.memory_available_bytes)} available"
    memory += f" of {text.size(host.memory_total_bytes)}{limit}"
    return tables.facts(
        [
            ("server", f"quantd {answer.server.version}, {', '.join(answer.server.api_versions)}"),
            ("system", f"{host.operating_system}, {host.machine}"),
            ("processor", f"{host.cpu_model}, {text.count(host.cpu_count, 'processor')}"),
            ("features", " ".join(host.cpu_features)),
            ("memory", memory),
            ("torch", _torch(answer.torch)),
            ("installed", ", ".join(present)),
            ("not installed", ", ".join(absent)),
            ("jobs", f"{limits.max_running_jobs} at once, {limits.max_queued_jobs} waiting"),
        ]
    )


def _torch(torch: v1.TorchInfo) -> str:
    import quantd
    from quantd import v1

    state = quantd.name_of(v1.TorchState, torch.state)
    if state == "FAILED":
        return f"{torch.version} does not work: {torch.failure}"
    if state != "KNOWN":
        return {"ABSENT": "not installed", "PENDING": f"{torch.version}, not asked yet"}.get(
            state, state.lower()
        )
    kinds = ", ".join(quantd.name_of(v1.DeviceKind, kind).lower() for kind in torch.devices)
    return f"{torch.version}, computes on {kinds}"


def _device_table(answer: v1.GetCapabilitiesResponse) -> Table:
    from rich.markup import escape

    import quantd
    from quantd import v1
    from quantd_server.cli import tables, text

    columns = ("device", "name", "capability", "memory", "free", "what is missing")
    made = tables.table(*columns, right=("memory", "free"))
    for device in answer.devices:
        kind = quantd.name_of(v1.DeviceKind, device.kind).lower()
        made.add_row(
            kind if kind == "cpu" else f"{kind}:{device.index}",
            escape(device.name),
            device.compute_capability or device.architecture,
            text.size(device.memory_total_bytes),
            text.size(device.memory_free_bytes),
            escape("\n".join(f"{item.message}; {item.remedy}" for item in device.unmet)),
        )
    return made


def _method_table(answer: v1.GetCapabilitiesResponse) -> Table:
    from rich.markup import escape

    import quantd
    from quantd import v1
    from quantd_server.cli import tables

    made = tables.table("method", "quantizes", "writes", "loads here with", "what is missing")
    for method in answer.methods:
        loads = [
            quantd.name_of(v1.Engine, load.engine).lower()
            for load in method.load
            if load.availability.available
        ]
        unmet = [
            "; ".join(part for part in (item.message, item.remedy) if part)
            for item in method.quantize.unmet
        ]
        made.add_row(
            quantd.name_of(v1.Method, method.method).lower().replace("_", "-"),
            "[green]yes[/]" if method.quantize.available else "[red]no[/]",
            escape(", ".join(method.output_formats)),
            ", ".join(loads) or "-",
            escape("\n".join(unmet)),
        )
    return made
