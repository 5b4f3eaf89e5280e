"""Errors of the server as Python exceptions, with everything that the status carries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from quantd import v1

DOMAIN = "quantd"


@dataclass(frozen=True)
class Violation:
    """One thing that is wrong with the request."""

    field: str
    """Path of the field, such as "spec.method.gptq.group_size"."""
    reason: str
    """Stable identifier."""
    message: str
    """What was got, what is allowed and how to fix it."""


@dataclass(frozen=True)
class Precondition:
    """One thing about the checkpoint, the host or the disk that stands against the request."""

    reason: str
    """Stable identifier."""
    subject: str
    """What it is about: a field of the request, or empty."""
    message: str
    """What is the case and how to change it."""


@dataclass(frozen=True)
class StatusDetails:
    """A `google.rpc.Status`, taken apart."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    domain: str = ""
    violations: tuple[Violation, ...] = ()
    preconditions: tuple[Precondition, ...] = ()
    retry_after: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""


class QuantdError(Exception):
    """A call that did not succeed.

    Attributes:
        code: The gRPC status code.
        reason: Stable identifier to branch on; empty when the error is not the server's own.
        message: What is wrong, in a sentence.
        remedy: How to mend it, which the message says, too; empty when the server does not know.
        violations: What is wrong with the request, field by field.
        preconditions: What stands against the request.
        retry_after: Seconds after which a repetition may succeed; None when not said.
        metadata: The variable parts of the message, by name.
        request_id: Identifier of the call in the server's log; empty when not known.
    """

    def __init__(self, details: StatusDetails) -> None:
        super().__init__(details)
        self.details = details
        self.code = details.code
        self.reason = details.reason
        self.message = details.message
        self.remedy = details.metadata.get("remedy", "")
        self.violations = details.violations
        self.preconditions = details.preconditions
        self.retry_after = details.retry_after
        self.metadata = details.metadata
        self.request_id = details.request_id

    @property
    def connection_lost(self) -> bool:
        """Whether this says something about the way to the server and not about the request."""
        if self.code is grpc.StatusCode.UNAVAILABLE:
            return True
        # A connection that breaks in the middle of a stream has many names: "Stream removed",
        # "Received RST_STREAM". An answer of the server always carries its ErrorInfo.
        return self.details.domain != DOMAIN and self.code in _BROKEN_STREAM

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later, without a change to it.

        True when the server cannot be reached, starts or stops, and where it says when to return.
        """
        return self.connection_lost or self.retry_after is not None

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        name = self.reason or self.code.name
        problems = [(item.field, item.message) for item in self.violations]
        problems += [(item.subject, item.message) for item in self.preconditions]
        if len(problems) == 1 and problems[0][1] == self.message:
            yield f"{name}: {_with_field(*problems.pop())}"
        else:
            yield f"{name}: {self.message}" if self.message else name
        for problem in problems:
            yield f"  {_with_field(*problem)}"
        total = self.metadata.get("violation_count", "")
        if problems and total.isdecimal() and int(total) > len(problems):
            yield f"  ... and {int(total) - len(problems)} more"
        if self.retry_after is not None:
            yield f"  try again after {self.retry_after:g} s"


class InvalidArgumentError(QuantdError):
    """The request is wrong whatever the host; see `violations`."""


class NotFoundError(QuantdError):
    """Something that the request names does not exist."""


class AlreadyExistsError(QuantdError):
    """The `request_id` was used for another request."""


class FailedPreconditionError(QuantdError):
    """The checkpoint, the host or the disk does not allow it; see `preconditions`."""


class ResourceExhaustedError(QuantdError):
    """The queue is full, see `retry_after`, or a message is too large."""


class OutOfRangeError(QuantdError):
    """The job has no event of that sequence yet."""


class UnimplementedError(QuantdError):
    """This version of the server does not do it."""


class UnavailableError(QuantdError):
    """The server cannot be reached, or it is starting or stopping."""


class DeadlineExceededError(QuantdError):
    """The call took longer than the client's timeout."""


class UnauthenticatedError(QuantdError):
    """The token is missing or wrong."""


class PermissionDeniedError(QuantdError):
    """The caller may not do this."""


class CallCancelledError(QuantdError):
    """The call, not the job, was cancelled."""


class InternalError(QuantdError):
    """A fault of the server; `metadata["incident"]` finds it in its log."""


class JobEndedError(QuantdError):
    """The job ended without output.

    Attributes:
        job: The job.
    """

    def __init__(self, job: v1.Job) -> None:
        super().__init__(details_of(job.error))
        self.args = (job,)
        self.job = job


class JobFailed(JobEndedError):
    """The job failed; `reason` and `message` say why."""


class JobCancelled(JobEndedError):
    """The job was cancelled; nothing of it is left."""


def _with_field(field: str, message: str) -> str:
    """A message behind the field it is about, unless it starts with it already."""
    return message if not field or message.startswith(f"{field}:") else f"{field}: {message}"


_BROKEN_STREAM = frozenset(
    {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED}
)
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_CLASSES: dict[grpc.StatusCode, type[QuantdError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRangeError,
    grpc.StatusCode.UNIMPLEMENTED: UnimplementedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.CANCELLED: CallCancelledError,
    grpc.StatusCode.INTERNAL: InternalError,
}


def error_of_call(call: grpc.RpcError) -> QuantdError:
    """The exception for a call that failed, of `grpc` or of `grpc.aio`."""
    trailing: dict[str, Any] = dict(cast("Any", call.trailing_metadata() or ()))
    status = status_pb2.Status(code=call.code().value[0], message=call.details() or "")
    # Some proxies change the status and leave its details: then these are of no use.
    with contextlib.suppress(ValueError):
        status = rpc_status.from_call(cast("grpc.Call", call)) or status
    details = details_of(status, request_id=str(trailing.get("x-request-id", "")))
    return _CLASSES.get(details.code, QuantdError)(details)


def unavailable(message: str) -> UnavailableError:
    """An error that this side noticed."""
    return UnavailableError(StatusDetails(code=grpc.StatusCode.UNAVAILABLE, message=message))


def details_of(status: status_pb2.Status, request_id: str = "") -> StatusDetails:
    """Takes a status apart; details of a type that is not known are left out."""
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    failure = error_details_pb2.PreconditionFailure()
    retry = error_details_pb2.RetryInfo()
    request = error_details_pb2.RequestInfo()
    found = set()
    for detail in status.details:
        for message in (info, bad_request, failure, retry, request):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
                found.add(message.DESCRIPTOR.name)
    return StatusDetails(
        code=_CODES.get(status.code, grpc.StatusCode.UNKNOWN),
        message=status.message,
        reason=info.reason,
        domain=info.domain,
        violations=tuple(
            Violation(field=item.field, reason=item.reason, message=item.description)
            for item in bad_request.field_violations
        ),
        preconditions=tuple(
            Precondition(reason=item.type, subject=item.subject, message=item.description)
            for item in failure.violations
        ),
        retry_after=retry.retry_delay.ToTimedelta().total_seconds()
        if "RetryInfo" in found
        else None,
        metadata=dict(info.metadata),
        request_id=request.request_id or request_id,
    )
