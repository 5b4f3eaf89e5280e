"""Builds requests; the blocking and the async client share it."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from typing import TypeVar

from google.protobuf.message import Message

from quantd import v1
from quantd._messages import fill

PAGE_SIZE = 2000
"""Tensors in a page: some 300 KB, far below the limit of a message."""

Paged = TypeVar("Paged", v1.InspectCheckpointResponse, v1.PlanQuantizationResponse)

UNARY_METHODS: dict[type[Message], str] = {
    v1.GetCapabilitiesRequest: "GetCapabilities",
    v1.InspectCheckpointRequest: "InspectCheckpoint",
    v1.ParseConfigRequest: "ParseConfig",
    v1.PlanQuantizationRequest: "PlanQuantization",
    v1.GetJobRequest: "GetJob",
    v1.ListJobsRequest: "ListJobs",
    v1.CancelJobRequest: "CancelJob",
    v1.DeleteJobRequest: "DeleteJob",
}
"""The RPC that takes a request and gives one answer, by the request's type."""


def method_of(request: Message) -> str:
    """Name of the RPC that takes ``request``.

    Raises:
        TypeError: It is no request, or one that is answered by a stream.
    """
    name = UNARY_METHODS.get(type(request))
    if name is None:
        allowed = ", ".join(each.__name__ for each in UNARY_METHODS)
        raise TypeError(f"request: got {type(request).__name__}, expected one of {allowed}")
    return name


def repeatable(request: v1.QuantizeRequest) -> v1.QuantizeRequest:
    """A copy with an id, so that it can be repeated when the connection breaks at the start."""
    copy = v1.QuantizeRequest()
    copy.CopyFrom(request)
    copy.request_id = copy.request_id or str(uuid.uuid4())
    return copy


def inspect(
    source: str | os.PathLike[str], *, tensors: bool, context_length: int | None
) -> v1.InspectCheckpointRequest:
    """Request for the first page."""
    return v1.InspectCheckpointRequest(
        source_uri=os.fspath(source),
        page_size=PAGE_SIZE if tensors else 0,
        context_length=context_length,
    )


def plan(spec: v1.QuantizationSpec, *, tensors: bool) -> v1.PlanQuantizationRequest:
    """Request for the first page."""
    return v1.PlanQuantizationRequest(spec=spec, page_size=PAGE_SIZE if tensors else 0)


def append_page(answer: Paged, page: Paged) -> None:
    """Adds the tensors of the next page to an answer."""
    answer.tensors.extend(page.tensors)
    answer.next_page_token = page.next_page_token


def parse_config(config: str | Mapping[str, object]) -> v1.ParseConfigRequest:
    """Request from JSON text or from what would become such a text."""
    text = config if isinstance(config, str) else json.dumps(dict(config))
    return v1.ParseConfigRequest(config_json=text)


def quantize(
    spec: v1.QuantizationSpec, *, request_id: str | None, labels: Mapping[str, str] | None
) -> v1.QuantizeRequest:
    """Request with an id; see `repeatable`."""
    return repeatable(
        v1.QuantizeRequest(spec=spec, request_id=request_id or "", labels=dict(labels or {}))
    )


def list_jobs(
    *, states: Iterable[str], methods: Iterable[str], labels: Mapping[str, str] | None
) -> v1.ListJobsRequest:
    """Request for the first page.

    Raises:
        ValueError: A state or a method is not known.
    """
    request = v1.ListJobsRequest(labels=dict(labels or {}))
    fill(request, {"states": list(states), "methods": list(methods)})
    return request


def delete_job(name: str, *, delete_output: bool) -> v1.DeleteJobRequest:
    """Request to forget a job."""
    return v1.DeleteJobRequest(name=name, delete_output=delete_output)
