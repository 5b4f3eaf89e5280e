"""The client for asyncio."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
import grpc.aio
from google.protobuf.message import Message

from quantd import _requests, v1
from quantd._async_job_stream import AsyncJobStream, Responses
from quantd._connection import (
    HEALTH_CHECK,
    HEALTH_REQUEST,
    HEALTH_SERVING,
    PemSource,
    connection,
)
from quantd._errors import error_of_call, unavailable
from quantd._follower import JobFollower, Reconnect
from quantd._specification import SpecOptions, quantization_spec

Request = TypeVar("Request")
Response = TypeVar("Response")


class AsyncClient:
    """Calls a quantd server with asyncio. To be created where an event loop runs.

    Every method raises `QuantdError`, or the subclass for its status code, when the call does not
    succeed; `reason` is what to branch on.

    Example:
        async with quantd.AsyncClient("localhost:50051") as client:
            stream = await client.quantize("/models/m", "/models/m.gguf", quantd.gguf("Q4_K_M"))
            async for event in stream:
                print(stream.job.progress.tensors_done)
            print((await stream.result()).output_bytes)
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        tls: bool | None = None,
        root_certificates: PemSource | None = None,
        client_certificate: tuple[PemSource, PemSource] | None = None,
        timeout: float | None = 30.0,
        metadata: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        reconnect: Reconnect = Reconnect(),  # noqa: B008 - immutable
    ) -> None:
        """Prepares the connection; the first call opens it.

        Args:
            address: "host:port" or "unix:/path.sock".
            token: Sent as `authorization: Bearer`. Needs TLS, a local address, or `tls=False`.
            tls: Whether to use TLS. Default: when certificates are given.
            root_certificates: PEM of the authorities to trust, bytes or a path. Default: the
                system's.
            client_certificate: PEM of the private key and of the certificate chain.
            timeout: Seconds a call may take, streams excepted; None means no limit.
            metadata: Sent with every call.
            reconnect: What job streams do when they lose the connection.

        Raises:
            ValueError: The settings contradict each other or would send the token in clear.
            OSError: A certificate file cannot be read.
        """
        self._connection = connection(
            address,
            token=token,
            tls=tls,
            root_certificates=root_certificates,
            client_certificate=client_certificate,
            metadata=metadata,
        )
        self._timeout = timeout
        self._reconnect = reconnect
        self._channel = self._connection.async_channel()
        self._quantization = v1.QuantizationServiceStub(self._channel)
        self._jobs = v1.JobServiceStub(self._channel)

    async def capabilities(self, *, refresh: bool = False) -> v1.GetCapabilitiesResponse:
        """Says what the server and its host can do.

        Args:
            refresh: Look for packages again, and ask torch again: after an installation.

        Returns:
            The capabilities.
        """
        request = v1.GetCapabilitiesRequest(refresh=refresh)
        return await self._call(self._quantization.GetCapabilities, request)

    async def inspect(
        self,
        source: str | os.PathLike[str],
        *,
        tensors: bool = False,
        context_length: int | None = None,
    ) -> v1.InspectCheckpointResponse:
        """Describes a checkpoint from its headers.

        Args:
            source: The checkpoint: a path or `file:` URI on the server.
            tensors: Whether to list the tensors, too: all of them.
            context_length: Context to size the key/value cache for.

        Returns:
            The checkpoint, the findings about it and whether this host can load it.
        """
        request = _requests.inspect(source, tensors=tensors, context_length=context_length)
        answer = await self._call(self._quantization.InspectCheckpoint, request)
        while answer.next_page_token:
            request.page_token = answer.next_page_token
            page = await self._call(self._quantization.InspectCheckpoint, request)
            _requests.append_page(answer, page)
        return answer

    async def parse_config(self, config: str | Mapping[str, object]) -> v1.ParseConfigResponse:
        """Says what a Hugging Face `quantization_config` means.

        Args:
            config: The configuration, or a whole config.json, as JSON text or as a mapping.

        Returns:
            The typed configuration and the findings about it.
        """
        return await self._call(self._quantization.ParseConfig, _requests.parse_config(config))

    async def plan(
        self,
        source: str | os.PathLike[str],
        method: v1.MethodConfig,
        *,
        output: str | os.PathLike[str] | None = None,
        tensors: bool = True,
        **options: Unpack[SpecOptions],
    ) -> v1.PlanQuantizationResponse:
        """Says what `quantize` would do, and everything that stands against it.

        Args:
            source: The checkpoint: a path or `file:` URI on the server.
            method: What to do, such as `quantd.gguf("Q4_K_M")`.
            output: Where the result would go. Default: the output is not checked.
            tensors: Whether to list what happens to each tensor.
            **options: See `SpecOptions`.

        Returns:
            The plan. `executable` says whether `quantize` would accept it, `findings` why not.
        """
        spec = quantization_spec(source, output, method, **options)
        request = _requests.plan(spec, tensors=tensors)
        answer = await self._call(self._quantization.PlanQuantization, request)
        while answer.next_page_token:
            request.page_token = answer.next_page_token
            page = await self._call(self._quantization.PlanQuantization, request)
            _requests.append_page(answer, page)
        return answer

    async def quantize(
        self,
        source: str | os.PathLike[str],
        output: str | os.PathLike[str],
        method: v1.MethodConfig,
        *,
        request_id: str | None = None,
        labels: Mapping[str, str] | None = None,
        **options: Unpack[SpecOptions],
    ) -> AsyncJobStream:
        """Starts a job, and returns when the server has accepted it.

        Args:
            source: The checkpoint: a path or `file:` URI on the server.
            output: Where the result goes, on the server.
            method: What to do, such as `quantd.gguf("Q4_K_M")`.
            request_id: UUID that makes the call idempotent. Default: a new one.
            labels: Labels to find the job by.
            **options: See `SpecOptions`.

        Returns:
            The events of the job.

        Raises:
            InvalidArgumentError: The request is wrong; see `violations`.
            FailedPreconditionError: The checkpoint, the host or the disk does not allow it.
            NotFoundError: The source is not there.
            AlreadyExistsError: `request_id` was used for another request.
            ResourceExhaustedError: The queue is full; see `retry_after`.
        """
        spec = quantization_spec(source, output, method, **options)
        request = _requests.quantize(spec, request_id=request_id, labels=labels)
        return await self._stream(JobFollower(self._reconnect), request).start()

    async def watch(self, name: str, after_sequence: int = 0) -> AsyncJobStream:
        """Attaches to a job.

        Args:
            name: "jobs/{id}".
            after_sequence: Sequence of the last event already seen.

        Returns:
            The events after it; see `AsyncJobStream`.

        Raises:
            NotFoundError: There is no such job.
        """
        follower = JobFollower(self._reconnect, last_sequence=after_sequence)
        return await self._stream(follower, v1.QuantizeRequest()).find(name)

    async def call(self, request: Message) -> Any:
        """Sends a request message as it is: for what the other methods have no arguments for.

        Args:
            request: A message such as `quantd.v1.ListJobsRequest(created_from=...)`.

        Returns:
            The answer of its RPC. Of a listing that is one page.

        Raises:
            TypeError: It is no request, or one that `follow` takes.
        """
        name = _requests.method_of(request)
        stub = self._quantization if hasattr(self._quantization, name) else self._jobs
        return await self._call(getattr(stub, name), request)

    async def follow(self, request: v1.QuantizeRequest | v1.WatchJobRequest) -> AsyncJobStream:
        """Sends the message of `quantize` or of `watch` as it is.

        Args:
            request: The message; one without a `request_id` gets a new one.

        Returns:
            The events of the job.

        Raises:
            QuantdError: As `quantize` and `watch` do.
        """
        if isinstance(request, v1.WatchJobRequest):
            return await self.watch(request.name, request.after_sequence)
        asked = _requests.repeatable(request)
        return await self._stream(JobFollower(self._reconnect), asked).start()

    def _stream(self, follower: JobFollower, request: v1.QuantizeRequest) -> AsyncJobStream:
        metadata = self._connection.metadata

        def attach(name: str, after_sequence: int) -> Responses:
            if not name:
                return self._quantization.Quantize(request, metadata=metadata)
            watch = v1.WatchJobRequest(name=name, after_sequence=after_sequence)
            return self._jobs.WatchJob(watch, metadata=metadata)

        async def get_job(name: str) -> v1.Job:
            get = v1.GetJobRequest(name=name)
            return (await self._jobs.GetJob(get, timeout=self._timeout, metadata=metadata)).job

        return AsyncJobStream(follower, attach=attach, get_job=get_job, cancel=self.cancel)

    async def job(self, name: str) -> v1.Job:
        """Returns a job as it is now.

        Args:
            name: "jobs/{id}".

        Returns:
            The job.

        Raises:
            NotFoundError: There is no such job.
        """
        return (await self._call(self._jobs.GetJob, v1.GetJobRequest(name=name))).job

    async def jobs(
        self,
        *,
        states: Iterable[str] = (),
        methods: Iterable[str] = (),
        labels: Mapping[str, str] | None = None,
    ) -> AsyncIterator[v1.Job]:
        """Lists jobs, the newest first, getting more pages while it is iterated.

        Args:
            states: States to include, such as "running". Default: all.
            methods: Methods to include, such as "gguf". Default: all.
            labels: Labels a job must have.

        Yields:
            One job after the other.

        Raises:
            ValueError: A state or a method is not known.
        """
        request = _requests.list_jobs(states=states, methods=methods, labels=labels)
        while True:
            answer = await self._call(self._jobs.ListJobs, request)
            for job in answer.jobs:
                yield job
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    async def cancel(self, name: str, reason: str = "") -> v1.Job:
        """Asks a job to stop. A finished job is returned as it is.

        Args:
            name: "jobs/{id}".
            reason: Why, for the record.

        Returns:
            The job, which may still be CANCELLING.

        Raises:
            NotFoundError: There is no such job.
        """
        return (
            await self._call(self._jobs.CancelJob, v1.CancelJobRequest(name=name, reason=reason))
        ).job

    async def delete(self, name: str, delete_output: bool = False) -> None:  # noqa: FBT001, FBT002
        """Forgets a finished job.

        Args:
            name: "jobs/{id}".
            delete_output: Whether what it wrote is deleted too.

        Raises:
            NotFoundError: There is no such job.
            FailedPreconditionError: It is not finished.
        """
        await self._call(
            self._jobs.DeleteJob, _requests.delete_job(name, delete_output=delete_output)
        )

    async def wait_until_serving(self, timeout: float = 30.0) -> None:  # noqa: ASYNC109
        """Waits until the server answers that it is serving.

        Args:
            timeout: Seconds to wait at most.

        Raises:
            UnavailableError: It does not serve by then.
        """
        check: Callable[..., Any] = self._channel.unary_unary(HEALTH_CHECK)
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            try:
                if await check(HEALTH_REQUEST, timeout=left, wait_for_ready=True) == HEALTH_SERVING:
                    return
            except grpc.RpcError as error:
                if not error_of_call(error).connection_lost:
                    break
            await asyncio.sleep(min(0.05, left))
        raise unavailable(f"{self._connection.address} was not serving within {timeout:g} s")

    async def _call(self, method: Callable[..., Awaitable[Response]], request: object) -> Response:
        try:
            return await method(request, timeout=self._timeout, metadata=self._connection.metadata)
        except grpc.RpcError as error:
            raise error_of_call(error) from None

    async def close(self) -> None:
        """Closes the connection; jobs go on."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        """Returns itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the connection."""
        await self.close()
