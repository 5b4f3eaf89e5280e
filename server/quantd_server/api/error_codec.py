"""The one place where findings become gRPC statuses.

Statuses travel in HTTP/2 trailers, of which a client accepts 8 KB before it may drop the call with
RESOURCE_EXHAUSTED, so everything here is bounded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RetryInfo
from google.rpc.status_pb2 import Status

from quantd_server.errors import Finding, FindingKind, QuantdError

DOMAIN = "quantd"
MAX_VIOLATIONS = 32
MAX_STATUS_BYTES = 4096
"""Serialized `google.rpc.Status`; base64 makes a third more of it in the trailers."""
MAX_MESSAGE_BYTES = 512
"""The message travels a second time, percent-encoded: up to three times as long."""
MAX_TEXT_BYTES = 400
"""One text of a violation or of the metadata."""
RETRY_SECONDS = 5.0
"""After which what is exhausted may be free again, where nobody can tell better."""

CODES: dict[FindingKind, grpc.StatusCode] = {
    "unauthenticated": grpc.StatusCode.UNAUTHENTICATED,
    "denied": grpc.StatusCode.PERMISSION_DENIED,
    "not_found": grpc.StatusCode.NOT_FOUND,
    "invalid": grpc.StatusCode.INVALID_ARGUMENT,
    "precondition": grpc.StatusCode.FAILED_PRECONDITION,
    "unimplemented": grpc.StatusCode.UNIMPLEMENTED,
    "exists": grpc.StatusCode.ALREADY_EXISTS,
    "cancelled": grpc.StatusCode.CANCELLED,
    "out_of_range": grpc.StatusCode.OUT_OF_RANGE,
    "exhausted": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "unavailable": grpc.StatusCode.UNAVAILABLE,
    "internal": grpc.StatusCode.INTERNAL,
}
"""In the order in which they decide the code of a call with several findings: without its source
a request cannot be judged, and a wrong request says nothing about the host."""

_PRIORITY = {kind: place for place, kind in enumerate(CODES)}


class StatusError(Exception):
    """Ends a call with a status that is more than one finding."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status


def status_of_error(error: QuantdError | StatusError) -> Status:
    """The status that a call ends with because of ``error``."""
    if isinstance(error, StatusError):
        return error.status
    return status_of([error.finding], retry_delay=error.retry_delay)


def status_of(
    findings: Sequence[Finding],
    metadata: Mapping[str, str] | None = None,
    *,
    retry_delay: float | None = None,
) -> Status:
    """The status that says all ``findings`` (at least one).

    The code, `ErrorInfo.reason` and the message are those of the finding of the first kind in
    ``CODES``. ``metadata`` is added to that of `ErrorInfo`; ``retry_delay`` is that of `RetryInfo`,
    in seconds.
    """
    ordered = sorted(findings, key=lambda finding: _PRIORITY[finding.kind])
    first, code = ordered[0], CODES[ordered[0].kind]
    message = _with_remedy(first)
    if len(ordered) > 1:
        message = f"{len(ordered)} problems; the first: {message}"
    status = Status(code=code.value[0], message=cut(message, MAX_MESSAGE_BYTES))
    info = ErrorInfo(reason=cut(first.reason, 63), domain=DOMAIN)
    if first.field:
        info.metadata["field"] = cut(first.field, MAX_TEXT_BYTES)
    if first.remedy:
        info.metadata["remedy"] = cut(first.remedy, MAX_TEXT_BYTES)
    for key, value in (metadata or {}).items():
        info.metadata[key] = cut(value, MAX_TEXT_BYTES)
    info.metadata["violation_count"] = str(len(ordered))
    _append(status, info)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        delay = RETRY_SECONDS if retry_delay is None else retry_delay
        _append(status, RetryInfo(retry_delay=Duration(seconds=math.ceil(delay))))
    if len(ordered) > 1 or first.kind in ("invalid", "precondition"):
        _append_violations(status, ordered[:MAX_VIOLATIONS])
    return status


def internal_status(incident: str) -> Status:
    """The status of a fault of ours: nothing but a number to look up in the log."""
    finding = Finding(
        field="",
        reason="INTERNAL",
        message=f"internal error {incident}",
        remedy="look it up in the server's log",
        kind="internal",
    )
    return status_of([finding], {"incident": incident})


def reason_of_rule(rule_id: str) -> str:
    """UPPER_SNAKE reason of a protovalidate rule: STRING_MIN_LEN of "string.min_len"."""
    return re.sub(r"[^A-Z0-9]+", "_", rule_id.upper())


def cut(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` bytes of UTF-8, without what UTF-8 cannot say."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= limit:
        return encoded.decode()
    return encoded[: limit - 3].decode("utf-8", "ignore") + "..."


def _with_remedy(finding: Finding) -> str:
    if not finding.remedy:
        return finding.message
    return f"{finding.message.rstrip('.')}; {finding.remedy}"


def _append(status: Status, detail: Message) -> None:
    status.details.add().Pack(detail)


def _append_violations(status: Status, findings: Sequence[Finding]) -> None:
    """Adds the violations, each type of detail once, as many as fit."""
    request, preconditions = BadRequest(), PreconditionFailure()
    room = MAX_STATUS_BYTES - status.ByteSize() - 128  # type URLs and lengths of the two details
    for finding in findings:
        description = cut(_with_remedy(finding), MAX_TEXT_BYTES)
        field = cut(finding.field, MAX_TEXT_BYTES)
        violation: Message
        if finding.kind == "precondition":
            violation = PreconditionFailure.Violation(
                type=finding.reason, subject=field, description=description
            )
        else:
            violation = BadRequest.FieldViolation(
                field=field, description=description, reason=finding.reason
            )
        room -= violation.ByteSize() + 4
        if room < 0:
            break
        if isinstance(violation, PreconditionFailure.Violation):
            preconditions.violations.append(violation)
        else:
            request.field_violations.append(violation)
    if request.field_violations:
        _append(status, request)
    if preconditions.violations:
        _append(status, preconditions)
