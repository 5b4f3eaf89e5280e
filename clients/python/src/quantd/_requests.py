"""Builds requests; the blocking and the async client share it."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from typing import TypeVar

from quantd import v1
from quantd._messages import fill

PAGE_SIZE = 2000
"""Tensors in a page: some 300 KB, far below the limit of a message."""

Paged = TypeVar("Paged", v1.InspectCheckpointResponse, v1.PlanQuantizationResponse)


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
    """Request with an id, so that it can be repeated when the connection breaks at the start."""
    return v1.QuantizeRequest(
        spec=spec, request_id=request_id or str(uuid.uuid4()), labels=dict(labels or {})
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
