"""The numbers that Prometheus scrapes: calls as they come, jobs as they are when it asks.

Names of the metrics of calls are those of the gRPC ecosystem's Prometheus libraries, so that their
dashboards fit. Labels have few values, all of them ours: a method that is not served is "unknown",
and a job is named only where the series ends with it. Imported only where metrics are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from quantd_server import __version__
from quantd_server.api.interceptor import Call
from quantd_server.host.memory import resident_bytes
from quantd_server.host.system import this_system
from quantd_server.jobs.job import JOB_STATES
from quantd_server.jobs.service import JobService
from quantd_server.jobs.statistics import Distribution

CALL_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0, 3600.0),
)
"""From a health check to a stream that follows a job."""
UNKNOWN = "unknown"

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily | InfoMetricFamily


class Metrics:
    """All metrics of a server."""

    def __init__(self, jobs: JobService) -> None:
        self._registry = CollectorRegistry()
        self.calls = CallMetrics(self._registry)
        self._registry.register(JobCollector(jobs))
        ProcessCollector(registry=self._registry)

    def render(self, accept: str) -> tuple[str, bytes]:
        """Content type and content, in the format that the header "Accept" asks for."""
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self._registry)


class CallMetrics:
    """Counts calls; a ``CallObserver``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        names = ("grpc_service", "grpc_method")
        self._in_flight = Gauge(
            "grpc_server_in_flight", "Calls that go on, streams included.", names, registry=registry
        )
        self._handled = Counter(
            "grpc_server_handled", "Calls, by code.", (*names, "grpc_code"), registry=registry
        )
        self._seconds = Histogram(
            "grpc_server_handling_seconds",
            "Seconds from a call's arrival to its end; of a stream, as long as it is open.",
            names,
            buckets=CALL_SECONDS,
            registry=registry,
        )

    def began(self, call: Call) -> None:
        self._in_flight.labels(*_names(call)).inc()

    def ended(self, call: Call, code: str, seconds: float) -> None:
        names = _names(call)
        self._in_flight.labels(*names).dec()
        self._handled.labels(*names, code).inc()
        self._seconds.labels(*names).observe(seconds)


def _names(call: Call) -> tuple[str, str]:
    if not call.is_served:  # or whoever can call could make series without end
        return UNKNOWN, UNKNOWN
    service, _, method = call.method.removeprefix("/").partition("/")
    return service, method


class JobCollector(Collector):
    """Jobs as they are at the moment of a scrape. Belongs to the event loop, as they do."""

    def __init__(self, jobs: JobService) -> None:
        self._jobs = jobs

    def collect(self) -> Iterator[Family]:
        yield InfoMetricFamily("quantd_build", "This server.", {"version": __version__})
        yield from self._now()
        yield from self._since_start()

    def _now(self) -> Iterator[Family]:
        states = GaugeMetricFamily(
            "quantd_jobs", "Jobs that the server knows, by state.", labels=["state"]
        )
        counts = self._jobs.count_by_state()
        for state in JOB_STATES:
            states.add_metric([state], counts[state])
        yield states
        yield GaugeMetricFamily("quantd_queue_depth", "Jobs that wait.", self._jobs.queue_depth)
        yield GaugeMetricFamily("quantd_queue_limit", "Jobs that may wait.", self._jobs.max_queued)
        # Not "job", which Prometheus sets to the name of what it scrapes.
        labels = ["job_name", "method"]
        memory = GaugeMetricFamily(
            "quantd_worker_resident_memory_bytes",
            "Resident memory of the worker of a job that runs.",
            labels=labels,
        )
        progress = GaugeMetricFamily(
            "quantd_job_progress_ratio", "Finished part of a running job's stage.", labels=labels
        )
        for job, pid in self._jobs.workers():
            values = [job.name, job.spec.method.name]
            progress.add_metric(values, job.progress.fraction)
            if (resident := resident_bytes(this_system().root, pid)) is not None:
                memory.add_metric(values, resident)
        yield memory
        yield progress

    def _since_start(self) -> Iterator[Family]:
        statistics = self._jobs.statistics
        ended = CounterMetricFamily(
            "quantd_jobs_ended", "Jobs that ended.", labels=["method", "state"]
        )
        for kind, count in statistics.ended.items():
            ended.add_metric(kind, count)
        yield ended
        seconds = HistogramMetricFamily(
            "quantd_job_seconds",
            "Seconds from the start of a job's last worker to its end.",
            labels=["method", "state"],
        )
        for kind, distribution in statistics.seconds.items():
            seconds.add_metric(kind, _buckets(distribution), distribution.sum)
        yield seconds
        for name, text, counted in (
            ("read", "Bytes of sources that jobs have quantized.", statistics.bytes_read),
            ("written", "Bytes of tensors that jobs have written.", statistics.bytes_written),
        ):
            family = CounterMetricFamily(f"quantd_job_{name}_bytes", text, labels=["method"])
            for method, size in counted.items():
                family.add_metric([method], size)
            yield family


def _buckets(distribution: Distribution) -> list[tuple[str, float]]:
    """Prometheus' form: as many as up to each bound, with those below it."""
    bounds = [*map(str, distribution.bounds), "+Inf"]
    return list(zip(bounds, accumulate(distribution.counts), strict=True))
