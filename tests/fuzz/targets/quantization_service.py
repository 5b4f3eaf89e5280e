"""Every method of QuantizationService."""

from __future__ import annotations

from tests.fuzz.request_target import target_of

from quantd.v1 import quantization_service_pb2

TARGET = target_of(quantization_service_pb2.DESCRIPTOR.services_by_name["QuantizationService"])
