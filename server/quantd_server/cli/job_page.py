"""One job in full."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from quantd import v1
from quantd_server.cli.findings import print_findings
from quantd_server.cli.paths import label
from quantd_server.cli.progress import amounts, doing
from quantd_server.cli.tables import facts, print_result, quantd_method


def print_job(job: v1.Job, console: Console) -> None:
    """What it does, how far it is and what became of it."""
    console.print(
        facts(
            [
                ("job", job.name),
                ("state", doing(job)),
                ("source", job.spec.source_uri),
                ("output", job.spec.output_uri),
                ("method", f"{quantd_method(job.spec.method)} ({label(job.spec.method)})"),
                ("labels", ", ".join(f"{key}={value}" for key, value in job.labels.items())),
                ("owner", job.owner),
                ("progress", "" if job.HasField("end_time") else amounts(job.progress)),
                ("created", _time(job.create_time)),
                ("started", _time(job.start_time) if job.HasField("start_time") else ""),
                ("ended", _time(job.end_time) if job.HasField("end_time") else ""),
                ("error", job.error.message),
            ]
        )
    )
    if job.findings:
        console.print()
        print_findings(job.findings, console)
    if job.HasField("result"):
        console.print()
        print_result(job.result, console)


def _time(moment: Timestamp) -> str:
    return f"{moment.ToDatetime():%Y-%m-%d %H:%M:%S} UTC"
