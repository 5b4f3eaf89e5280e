"""The server."""

from __future__ import annotations

from quantd_server.reasons.entry import Area, Reason

AREA = Area(
    title="The server",
    about="Faults of the server, and of the state folder that it keeps jobs in.",
    reasons={
        "INTERNAL": Reason(
            meaning="A fault of the server.",
            action="Look up the incident, or the job, in the server's log, and report it.",
        ),
        "STATE_IN_USE": Reason(
            meaning="Another server, or a worker of one that has ended, uses the state folder.",
            action="Stop that process first, or name another state folder.",
        ),
        "STATE_NOT_WRITABLE": Reason(
            meaning="The store of jobs cannot be written. Jobs that run go on; no new ones are "
            "taken meanwhile.",
            action="Try again with backoff; have the operator see that the disk of the state "
            "folder has room and that the server may write there.",
        ),
        "STATE_TOO_NEW": Reason(
            meaning="A newer quantd wrote the state folder.",
            action="Start that version, or name another state folder.",
        ),
        "STATE_UNREADABLE": Reason(
            meaning="The store of jobs is damaged.",
            action="Have the operator bring the state folder back from a copy, or name another.",
        ),
        "TRACING_NOT_INSTALLED": Reason(
            meaning="The environment asks for traces, and OpenTelemetry is not installed.",
            action="Install quantd with its extra `otel`, or unset the variable in the message.",
        ),
        "TRACING_NOT_SUPPORTED": Reason(
            meaning="The environment asks for an exporter of traces that this server does not "
            "have.",
            action="Send traces by OTLP over gRPC, or unset the variables of OpenTelemetry.",
        ),
    },
)
