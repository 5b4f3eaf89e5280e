"""Every method of JobService."""

from __future__ import annotations

from tests.fuzz.request_target import target_of

from quantd.v1 import job_service_pb2

TARGET = target_of(job_service_pb2.DESCRIPTOR.services_by_name["JobService"])
