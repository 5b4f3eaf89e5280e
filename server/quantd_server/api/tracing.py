"""Traces by OpenTelemetry, where its environment variables ask for them and it is installed.

A span for every call, below the caller's, and one for every job from the queue to its end, below
that of the call that made it: so that they are one trace, though the job outlives the call and
perhaps the server. Names and attributes are those of OpenTelemetry's conventions for RPC. Spans
leave through a thread of its SDK; where nobody takes them, they are dropped and calls go on.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from quantd_server import __version__
from quantd_server.api.interceptor import Call
from quantd_server.api.trace_context import (
    TRACEPARENT_KEY,
    TRACESTATE_KEY,
    TraceContext,
)
from quantd_server.errors import QuantdError
from quantd_server.jobs.job import StoredJob

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
EXPORTER, DISABLED = "OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED"
STOP_PATIENCE = 5.0
"""Seconds that a server which stops waits for its last spans to be taken."""

SERVER_FAULTS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Codes that are errors of a server's span, by OpenTelemetry's conventions for gRPC."""
OTHER = "_OTHER"
"""Stands for every method that is not served, by the same."""


def is_asked_for(environment: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's variables ask for traces.

    Raises QuantdError TRACING_NOT_SUPPORTED when they ask for what this server does not have.
    """
    exporter = environment.get(EXPORTER, "").strip()
    endpoints = [environment[name] for name in ENDPOINTS if environment.get(name)]
    if environment.get(DISABLED, "").strip().lower() == "true" or exporter == "none":
        return False
    if exporter not in ("", "otlp"):
        raise _not_supported(EXPORTER, exporter, "otlp or none")
    if not exporter and not endpoints:
        return False
    protocol = next((environment[name] for name in PROTOCOLS if environment.get(name)), "grpc")
    if protocol.strip() != "grpc":
        raise _not_supported("OTEL_EXPORTER_OTLP_PROTOCOL", protocol, "grpc")
    return True


def exporting() -> SpanProcessor:
    """What sends spans to where the environment says.

    Raises QuantdError TRACING_NOT_INSTALLED.
    """
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        asking = next(name for name in (EXPORTER, *ENDPOINTS) if os.environ.get(name))
        raise QuantdError(
            reason="TRACING_NOT_INSTALLED",
            kind="precondition",
            message=f"{asking} asks for traces, and OpenTelemetry is not installed",
            remedy="install quantd with its extra: pip install '.[otel]' in its folder; or unset "
            "the variable",
        ) from None
    return BatchSpanProcessor(OTLPSpanExporter())


class Tracing:
    """Makes spans of calls, as a ``CallObserver``, and of jobs."""

    def __init__(self, processor: SpanProcessor) -> None:
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        ours = Resource.create({"service.name": "quantd", "service.version": __version__})
        self._provider = TracerProvider(
            resource=ours.merge(OTELResourceDetector().detect()),  # the environment's go before
            shutdown_on_exit=False,  # that would wait for a collector that does not answer
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("quantd", __version__)
        self._extract = TraceContextTextMapPropagator().extract
        self._spans: dict[Call, Span] = {}

    def began(self, call: Call) -> None:
        from opentelemetry.trace import SpanKind, format_span_id, format_trace_id

        method = call.method.removeprefix("/") if call.is_served else OTHER
        span = self._tracer.start_span(
            method if call.is_served else "grpc",
            context=self._parent(call.trace),
            kind=SpanKind.SERVER,
            attributes={
                "rpc.system.name": "grpc",
                "rpc.method": method,
                "quantd.request_id": call.request_id,
            },
        )
        self._spans[call] = span
        context = span.get_span_context()
        call.trace = TraceContext(
            trace_id=format_trace_id(context.trace_id),
            span_id=format_span_id(context.span_id),
            flags=f"{int(context.trace_flags):02x}",
        )

    def ended(self, call: Call, code: str, seconds: float) -> None:
        from opentelemetry.trace import Status, StatusCode

        span = self._spans.pop(call)
        span.set_attribute("rpc.response.status_code", code)
        if call.job:
            span.set_attribute("quantd.job.name", call.job)
        if code in SERVER_FAULTS:
            span.set_attribute("error.type", code)
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def job_ended(self, stored: StoredJob) -> None:
        """Make the span of a job, now that its length is known."""
        from opentelemetry.trace import SpanKind, Status, StatusCode

        job, method = stored.job, stored.job.spec.method.name
        span = self._tracer.start_span(
            f"quantize {method}",
            context=self._parent(_caller_of(stored)),
            kind=SpanKind.INTERNAL,
            start_time=_nanoseconds(job.create_time),
            attributes={
                "quantd.job.name": job.name,
                "quantd.job.method": method,
                "quantd.job.state": job.state,
                "quantd.job.attempts": stored.attempts,
                "quantd.job.source_bytes": job.plan.source_bytes,
            },
        )
        if job.start_time is not None:
            span.add_event("started", timestamp=_nanoseconds(job.start_time))
        if job.error is not None:
            span.set_attribute("error.type", job.error.reason)
        if job.state == "FAILED":
            span.set_status(Status(StatusCode.ERROR))
        assert job.end_time is not None
        span.end(_nanoseconds(job.end_time))

    def _parent(self, trace: TraceContext | None) -> Context:
        from opentelemetry.context import Context

        if trace is None:
            return Context()
        headers = {TRACEPARENT_KEY: trace.traceparent, TRACESTATE_KEY: trace.state}
        return self._extract(headers, Context())

    async def close(self) -> None:
        """Send what is left, for a while."""
        # On a thread that nobody waits for when the process ends.
        thread = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        thread.start()
        await asyncio.to_thread(thread.join, STOP_PATIENCE)


def _caller_of(stored: StoredJob) -> TraceContext | None:
    origin = stored.origin
    if not origin.traceparent:
        return None
    _, trace_id, span_id, flags = origin.traceparent.split("-")
    return TraceContext(trace_id=trace_id, span_id=span_id, flags=flags)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _not_supported(variable: str, value: str, allowed: str) -> QuantdError:
    return QuantdError(
        reason="TRACING_NOT_SUPPORTED",
        kind="precondition",
        message=f"{variable} is {value!r}; this server has {allowed}",
        remedy=f"set it to {allowed}, or unset the variables of OpenTelemetry",
    )
