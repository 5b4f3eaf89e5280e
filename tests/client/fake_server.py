"""A server whose only job is a script of events, and whose streams break where it is told to."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from quantd import v1

JOB = "jobs/0a1b2c3d-0000-4000-8000-000000000001"
SECOND_PAGE = "second"
TENSOR_BYTES = 1000


@dataclass(frozen=True)
class Break:
    """Ends a stream after some events: with a code, or as if all were said when it has none."""

    after: int
    code: grpc.StatusCode | None = grpc.StatusCode.UNAVAILABLE
    details: tuple[Any, ...] = ()


def status(code: grpc.StatusCode, message: str, *details: Any) -> grpc.Status:
    """A status with details."""
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    value = status_pb2.Status(code=code.value[0], message=message, details=packed)
    return rpc_status.to_status(value)


def error_info(reason: str, **metadata: str) -> error_details_pb2.ErrorInfo:
    """What every error of a real server carries."""
    return error_details_pb2.ErrorInfo(reason=reason, domain="quantd", metadata=metadata)


def script(tensors: int = 5, *, state: str = "SUCCEEDED") -> list[v1.JobEvent]:
    """The events of a job, from 1: queued, running, a stage, tensors, a warning, its end."""
    total = tensors * TENSOR_BYTES
    job = v1.Job(
        name=JOB,
        spec=v1.QuantizationSpec(
            source_uri="/models/m",
            output_uri="/models/m-Q4_K_M.gguf",
            method=v1.MethodConfig(gguf=v1.GgufConfig(file_type="GGUF_FILE_TYPE_Q4_K_M")),
        ),
        state="JOB_STATE_QUEUED",
        progress=v1.Progress(tensors_total=tensors, bytes_total=total),
    )
    events = [v1.JobEvent(snapshot=job)]
    job.state = v1.JobState.JOB_STATE_RUNNING
    events.append(v1.JobEvent(snapshot=job))
    events.append(v1.JobEvent(stage=v1.StageEvent(stage="JOB_STAGE_QUANTIZING")))
    for index in range(tensors):
        progress = v1.Progress(
            stage="JOB_STAGE_QUANTIZING",
            tensors_done=index + 1,
            tensors_total=tensors,
            bytes_done=(index + 1) * TENSOR_BYTES,
            bytes_total=total,
            bytes_per_second=1e6,
        )
        progress.remaining.FromMilliseconds(100 * (tensors - index))
        tensor = v1.TensorEvent(
            name=f"blk.{index}.attn_q.weight",
            shape=[20, 25],
            source_type="BF16",
            target_type="Q4_K",
            size_bytes=282,
            relative_error=0.05,
            progress=progress,
        )
        events.append(v1.JobEvent(tensor=tensor))
        job.progress.CopyFrom(progress)
    warning = v1.Finding(
        severity="SEVERITY_WARNING",
        reason="NON_FINITE_WEIGHTS",
        message="1 weight of blk.0 is not finite",
        remedy="check the checkpoint",
    )
    events.append(v1.JobEvent(warning=warning))
    job.findings.append(warning)
    job.state = v1.JobState.Value(f"JOB_STATE_{state}")
    job.end_time.FromSeconds(1_800_000_000)
    if state == "SUCCEEDED":
        job.result.CopyFrom(
            v1.QuantizationResult(
                output_uri="/models/m-Q4_K_M.gguf",
                files=[v1.OutputFile(name="m-Q4_K_M.gguf", size_bytes=1500, sha256="0" * 64)],
                types=[v1.TypeSummary(target_type="Q4_K", tensor_count=tensors, size_bytes=1410)],
                source_bytes=total,
                output_bytes=1500,
                bits_per_weight=4.5,
                relative_error=0.0513,
                worst_tensor="blk.3.attn_q.weight",
                worst_relative_error=0.07,
            )
        )
    else:
        job.error.code = grpc.StatusCode.FAILED_PRECONDITION.value[0]
        job.error.message = "the disk is full"
        job.error.details.add().Pack(error_info("DISK_FULL"))
    events.append(v1.JobEvent(snapshot=job))
    for sequence, event in enumerate(events, start=1):
        event.sequence = sequence
    events[-1].snapshot.last_sequence = len(events)
    return events


class FakeServer(v1.QuantizationServiceServicer, v1.JobServiceServicer):
    """Answers every method; `calls` records what was asked."""

    def __init__(self, folder: Any, log: Sequence[v1.JobEvent] | None = None) -> None:
        self.address = f"unix:{folder}/fake.sock"
        self.log = list(script() if log is None else log)
        self.first_kept = 1
        """Events before this sequence are gone; who asks for them gets a snapshot instead."""
        self.heartbeat_every = 0
        """A heartbeat after every so many events; 0 for none."""
        self.breaks: list[Break] = []
        """What happens to the next streams, one each; none for the ones after."""
        self.refusal: grpc.Status | None = None
        """What `Quantize` answers instead."""
        self.plan = v1.PlanQuantizationResponse(executable=True)
        self.tensor_count = 0
        """Tensors that inspection and planning list, page by page."""
        self.loads: list[v1.LoadAssessment] = []
        """What inspection says of engines."""
        self.last_sent: int | None = None
        """Events after this sequence are held back; None holds back none."""
        self.calls: list[tuple[str, Any]] = []
        self.metadata: dict[str, str] = {}
        self._server: grpc.Server | None = None

    # -- running ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Listens; again after `stop`."""
        self._server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        v1.add_QuantizationServiceServicer_to_server(self, self._server)
        v1.add_JobServiceServicer_to_server(self, self._server)
        serving = health.HealthServicer()
        serving.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(serving, self._server)
        self._server.add_insecure_port(self.address)
        self._server.start()

    def stop(self) -> None:
        """Breaks every connection."""
        if self._server is not None:
            self._server.stop(None).wait()
            self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def requests(self, method: str) -> list[Any]:
        """The requests of one method, in their order."""
        return [request for name, request in self.calls if name == method]

    def _called(self, method: str, request: Any, context: grpc.ServicerContext) -> None:
        copy = type(request)()
        copy.CopyFrom(request)
        self.calls.append((method, copy))
        self.metadata = {key: str(value) for key, value in context.invocation_metadata()}

    # -- QuantizationService ---------------------------------------------------------------------

    def GetCapabilities(self, request, context):  # noqa: N802
        self._called("GetCapabilities", request, context)
        return v1.GetCapabilitiesResponse(server=v1.ServerInfo(version="0.0.0"))

    def InspectCheckpoint(self, request, context):  # noqa: N802
        self._called("InspectCheckpoint", request, context)
        answer = v1.InspectCheckpointResponse(checkpoint=v1.Checkpoint(uri=request.source_uri))
        answer.loads.extend(self.loads)
        answer.next_page_token = self._page(request, answer.tensors, "name")
        return answer

    def ParseConfig(self, request, context):  # noqa: N802
        self._called("ParseConfig", request, context)
        method = v1.MethodConfig(bitsandbytes_8bit=v1.Bitsandbytes8BitConfig())
        return v1.ParseConfigResponse(status="CONFIG_STATUS_SERVED", method=method)

    def PlanQuantization(self, request, context):  # noqa: N802
        self._called("PlanQuantization", request, context)
        answer = v1.PlanQuantizationResponse()
        answer.CopyFrom(self.plan)
        answer.next_page_token = self._page(request, answer.tensors, "target_name")
        return answer

    def _page(self, request: Any, tensors: Any, name: str) -> str:
        start = int(request.page_token or 0)
        end = min(start + request.page_size, self.tensor_count)
        for index in range(start, end):
            tensors.add(**{name: f"tensor.{index}"})
        return str(end) if request.page_size and end < self.tensor_count else ""

    def Quantize(self, request, context):  # noqa: N802
        self._called("Quantize", request, context)
        if self.refusal is not None:
            context.abort_with_status(self.refusal)
        for event in self._stream(0, context):
            yield v1.QuantizeResponse(event=event)

    # -- JobService ------------------------------------------------------------------------------

    def GetJob(self, request, context):  # noqa: N802
        self._called("GetJob", request, context)
        if request.name != JOB:
            info = error_info("JOB_NOT_FOUND")
            context.abort_with_status(status(grpc.StatusCode.NOT_FOUND, "no such job", info))
        return v1.GetJobResponse(job=self.log[-1].snapshot)

    def ListJobs(self, request, context):  # noqa: N802
        self._called("ListJobs", request, context)
        second = request.page_token == SECOND_PAGE
        job = v1.Job(name="jobs/older" if second else "jobs/newer")
        return v1.ListJobsResponse(jobs=[job], next_page_token="" if second else SECOND_PAGE)

    def WatchJob(self, request, context):  # noqa: N802
        self._called("WatchJob", request, context)
        for event in self._stream(request.after_sequence, context):
            yield v1.WatchJobResponse(event=event)

    def CancelJob(self, request, context):  # noqa: N802
        self._called("CancelJob", request, context)
        return v1.CancelJobResponse(job=v1.Job(name=request.name, state="JOB_STATE_CANCELLING"))

    def DeleteJob(self, request, context):  # noqa: N802
        self._called("DeleteJob", request, context)
        return v1.DeleteJobResponse()

    def _stream(self, after: int, context: grpc.ServicerContext) -> Iterator[v1.JobEvent]:
        planned = self.breaks.pop(0) if self.breaks else None
        events = self.log[after:]
        if after + 1 < self.first_kept <= len(self.log):
            stand_in = v1.JobEvent(sequence=self.first_kept - 1)
            stand_in.snapshot.CopyFrom(self.log[1].snapshot)
            events = [stand_in, *self.log[self.first_kept - 1 :]]
        progress = v1.Progress()
        for sent, event in enumerate(events):
            if planned is not None and sent == planned.after:
                if planned.code is None:
                    return
                context.abort_with_status(status(planned.code, "broken", *planned.details))
            while self.last_sent is not None and event.sequence > self.last_sent:
                if not context.is_active():
                    return
                time.sleep(0.005)
            yield event
            if event.HasField("tensor"):
                progress = event.tensor.progress
            if self.heartbeat_every and (sent + 1) % self.heartbeat_every == 0:
                yield v1.JobEvent(
                    sequence=event.sequence, heartbeat=v1.Heartbeat(progress=progress)
                )
