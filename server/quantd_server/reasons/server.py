"""The server."""

from __future__ import annotations

from quantd_server.reasons.entry import Area, Reason

AREA = Area(
    title="The server",
    about="Faults of the server.",
    reasons={
        "INTERNAL": Reason(
            meaning="A fault of the server.",
            action="Look up the incident, or the job, in the server's log, and report it.",
        ),
    },
)
