"""Errors keep everything that the status carries, and read well."""

from __future__ import annotations

import pickle

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from tests.client.fake_server import error_info, status

import quantd

Code = grpc.StatusCode

BAD_REQUEST = error_details_pb2.BadRequest(
    field_violations=[
        error_details_pb2.BadRequest.FieldViolation(
            field="spec.method.gptq.bits",
            reason="UINT32_IN",
            description="got 5, must be one of 2, 3, 4, 8; set one of those",
        ),
        error_details_pb2.BadRequest.FieldViolation(
            field="spec.source_uri", reason="STRING_MIN_LEN", description="must not be empty"
        ),
    ]
)


def refused(server, client, refusal):
    server.refusal = refusal
    with pytest.raises(quantd.QuantdError) as caught:
        client.quantize("/m", "/o", quantd.gguf())
    return caught.value


def test_violations(server, client):
    info = error_info("INVALID_REQUEST", violation_count="40")
    message = "the request is wrong"
    error = refused(server, client, status(Code.INVALID_ARGUMENT, message, info, BAD_REQUEST))
    assert type(error) is quantd.InvalidArgumentError
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert error.violations == (
        quantd.Violation(
            "spec.method.gptq.bits",
            "UINT32_IN",
            "got 5, must be one of 2, 3, 4, 8; set one of those",
        ),
        quantd.Violation("spec.source_uri", "STRING_MIN_LEN", "must not be empty"),
    )
    assert str(error).splitlines() == [
        "INVALID_REQUEST: the request is wrong",
        "  spec.method.gptq.bits: got 5, must be one of 2, 3, 4, 8; set one of those",
        "  spec.source_uri: must not be empty",
        "  ... and 38 more",
    ]


def test_a_single_violation_is_one_line(server, client):
    violation = error_details_pb2.BadRequest.FieldViolation(
        field="spec.source_uri", reason="PATH_OUTSIDE_ROOTS", description="not allowed; use /models"
    )
    details = (
        error_info("PATH_OUTSIDE_ROOTS", violation_count="1"),
        error_details_pb2.BadRequest(field_violations=[violation]),
    )
    refusal = status(Code.INVALID_ARGUMENT, "not allowed; use /models", *details)
    assert str(refused(server, client, refusal)) == (
        "PATH_OUTSIDE_ROOTS: spec.source_uri: not allowed; use /models"
    )


def test_preconditions_and_request_id(server, client):
    failure = error_details_pb2.PreconditionFailure(
        violations=[
            error_details_pb2.PreconditionFailure.Violation(
                type="DISK_TOO_SMALL", subject="spec.output_uri", description="needs 3 GB, has 1 GB"
            )
        ]
    )
    request = error_details_pb2.RequestInfo(request_id="r-1")
    details = (error_info("DISK_TOO_SMALL"), failure, request)
    error = refused(server, client, status(Code.FAILED_PRECONDITION, "no", *details))
    assert type(error) is quantd.FailedPreconditionError
    assert error.preconditions == (
        quantd.Precondition("DISK_TOO_SMALL", "spec.output_uri", "needs 3 GB, has 1 GB"),
    )
    assert error.request_id == "r-1"
    assert error.remedy == ""
    assert "spec.output_uri: needs 3 GB, has 1 GB" in str(error)


def test_the_remedy_is_there_by_itself(server, client):
    info = error_info("DISK_TOO_SMALL", remedy="make room")
    error = refused(server, client, status(Code.FAILED_PRECONDITION, "full; make room", info))
    assert error.remedy == "make room"


def test_retry_after(server, client):
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=5))
    details = (error_info("QUEUE_FULL"), retry)
    error = refused(server, client, status(Code.RESOURCE_EXHAUSTED, "full", *details))
    assert type(error) is quantd.ResourceExhaustedError
    assert error.retry_after == 5.0


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.NOT_FOUND, quantd.NotFoundError),
        (Code.ALREADY_EXISTS, quantd.AlreadyExistsError),
        (Code.OUT_OF_RANGE, quantd.OutOfRangeError),
        (Code.UNIMPLEMENTED, quantd.UnimplementedError),
        (Code.UNAUTHENTICATED, quantd.UnauthenticatedError),
        (Code.PERMISSION_DENIED, quantd.PermissionDeniedError),
        (Code.INTERNAL, quantd.InternalError),
        (Code.ABORTED, quantd.QuantdError),
    ],
)
def test_each_code_has_its_class(server, client, code, kind):
    error = refused(server, client, status(code, "why", error_info("A_REASON", path="/m")))
    assert type(error) is kind
    assert error.code is code
    assert error.metadata == {"path": "/m"}
    assert str(error) == "A_REASON: why"


async def test_asyncio_raises_the_same(server, async_client):
    server.refusal = status(Code.INVALID_ARGUMENT, "wrong", error_info("INVALID"), BAD_REQUEST)
    with pytest.raises(quantd.InvalidArgumentError) as caught:
        await async_client.quantize("/m", "/o", quantd.gguf())
    assert len(caught.value.violations) == 2
    with pytest.raises(quantd.NotFoundError):
        await async_client.job("jobs/none")


def test_errors_survive_pickling(server, client):
    error = refused(server, client, status(Code.NOT_FOUND, "gone", error_info("SOURCE_NOT_FOUND")))
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (type(copy), str(copy), copy.reason) == (type(error), str(error), error.reason)
