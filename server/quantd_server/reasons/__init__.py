"""What every reason code means that `Finding.reason` or `UnmetRequirement.reason` can be.

`docs/reasons.md` is written from this. To add a reason: use it where the fault is found, add an
entry to the module of its area, and run `make generate`; a test says what is missing.
"""

from __future__ import annotations

from quantd_server.reasons import (
    access,
    calibration,
    config,
    gguf,
    headers,
    host,
    jobs,
    method,
    output,
    request,
    rules,
    serve_target,
    server,
    source,
)
from quantd_server.reasons.entry import Area, Reason

__all__ = ["AREAS", "REASONS", "Area", "Reason"]

AREAS: tuple[Area, ...] = (
    access.AREA,
    request.AREA,
    rules.AREA,
    calibration.AREA,
    source.AREA,
    headers.AREA,
    method.AREA,
    gguf.AREA,
    output.AREA,
    host.AREA,
    serve_target.AREA,
    config.AREA,
    jobs.AREA,
    server.AREA,
)

REASONS: dict[str, Reason] = {
    code: reason for area in AREAS for code, reason in area.reasons.items()
}
