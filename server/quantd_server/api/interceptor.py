"""The outermost layer of every call: who calls, checks, errors, log.

Nothing that happens inside may reach a client as UNKNOWN or with a text of ours that was not
written for it, so messages are decoded and encoded here too, and not by grpc around us. On the wire
every request is a stream; grpc gets all handlers as such, because its own reading of a single
request waits forever for a client that sends none.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import re
import time
import traceback
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from quantd_server.api.access import ROLES_OF_METHODS, Access
from quantd_server.api.error_codec import StatusError, internal_status, status_of_error
from quantd_server.api.identity import Identity
from quantd_server.api.log import Log
from quantd_server.api.request_checks import decode
from quantd_server.api.trace_context import TraceContext, trace_context
from quantd_server.errors import QuantdError
from quantd_server.jobs.job import Origin

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]  # generic in its stubs only

REQUEST_ID_KEY = "x-request-id"
SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,64}")
STATUS_KEY = "grpc-status-details-bin"
AUDITED = frozenset(method for method, role in ROLES_OF_METHODS.items() if role != "read")
"""Methods that change something; each call of one has a line "audit" in the log."""
CODES = {code.value[0]: code for code in grpc.StatusCode}

Context = grpc.aio.ServicerContext[Any, Any]

CHECK_INTERVAL = 1.0
"""Seconds that a stream goes on at least before it is asked again whether its caller may have it.
A quiet one is asked at its heartbeats."""


class Call:
    """One call, for the log and for its handler."""

    def __init__(
        self, method: str, request_id: str, trace: TraceContext | None, *, is_served: bool
    ) -> None:
        self.method = method
        self.is_served = is_served
        self.request_id = request_id
        self.trace = trace
        """The trace it is part of, if it is of one."""
        self.job: str | None = None
        """Name of the job it is about, as soon as that is known."""
        self.identity: Identity | None = None
        """Who calls, as soon as that is known."""
        self.audit: Callable[[str], None] | None = None
        """Writes the line of an audited call, given the code of its answer; None once it did."""

    @property
    def trace_id(self) -> str | None:
        return self.trace.trace_id if self.trace else None

    @property
    def caller_name(self) -> str | None:
        return (self.identity.name if self.identity else None) or None

    def finish_audit(self, code: str) -> None:
        """Write the line, unless it is written."""
        if self.audit is not None:
            write, self.audit = self.audit, None
            write(code)


class CallObserver(Protocol):
    """Hears of every call, on the event loop."""

    def began(self, call: Call) -> None: ...

    def ended(self, call: Call, code: str, seconds: float) -> None: ...


_current_call: contextvars.ContextVar[Call] = contextvars.ContextVar("call")


def note_job(name: str) -> None:
    """Name the job that the current call is about, for its line in the log."""
    call = _current_call.get(None)
    if call is not None:
        call.job = name


def note_effect() -> None:
    """Audit the current call as done: what is left of it only tells of what it has changed."""
    call = _current_call.get(None)
    if call is not None:
        call.finish_audit("OK")


def caller() -> Identity:
    """Who makes the current call."""
    identity = _current_call.get().identity
    assert identity is not None, "no handler runs before its caller is known"
    return identity


def origin() -> Origin:
    """What a job made by the current call remembers of it."""
    call = _current_call.get()
    return Origin(
        request_id=call.request_id, traceparent=call.trace.traceparent if call.trace else ""
    )


class OutermostInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler; ``input_types`` has the request class of every method by its path."""

    def __init__(
        self,
        log: Log,
        access: Access,
        input_types: dict[str, type[Message]],
        observers: tuple[CallObserver, ...] = (),
    ) -> None:
        self._log = log
        self._observers = observers
        self._access = access
        self._input_types = input_types

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None:
            refuse = self._wrap(method, _refuse, str.encode, is_served=False)
            return grpc.stream_stream_rpc_method_handler(refuse)
        run = _runner(handler, self._input_types.get(method))
        handle = self._wrap(method, run, handler.response_serializer)
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(handle)
        return grpc.stream_unary_rpc_method_handler(handle)

    def _wrap(self, method: str, run: Any, serialize: Any, *, is_served: bool = True) -> Any:
        """A handler of streams of bytes around ``run(incoming, context, serialize, still_may)``."""

        async def handle(incoming: Any, context: Context) -> Any:
            trace = trace_context(context.invocation_metadata() or ())
            call = Call(method, _request_id(context), trace, is_served=is_served)
            _current_call.set(call)
            if method in AUDITED:
                call.audit = functools.partial(self._audit, call, context.peer())
            context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
            for observer in self._observers:
                observer.began(call)
            start = time.perf_counter()
            code = "OK"
            try:
                call.identity = self._access.caller_of(method, context)
                self._access.check(method, call.identity, is_served=is_served)
                with self._access.place(method, context):
                    still_may = functools.partial(self._access.check_again, method, call.identity)
                    return await run(incoming, context, serialize, still_may)
            except (QuantdError, StatusError) as error:
                status = status_of_error(error)
                code = CODES[status.code].name
                await _abort(context, call, status)
            except grpc.aio.AbortError:
                code = _code_of(context)
                raise
            except asyncio.CancelledError:
                code = _why_cancelled(context)
                raise
            except Exception:  # noqa: BLE001 - whatever it is, the client must not see it
                if context.done():  # the client left while an answer was on its way
                    code = _why_cancelled(context)
                    return None
                code = "INTERNAL"
                incident = uuid.uuid4().hex
                self._log(
                    "incident",
                    level="error",
                    incident=incident,
                    request_id=call.request_id,
                    trace_id=call.trace_id,
                    caller=call.caller_name,
                    job=call.job,
                    method=method,
                    trace=traceback.format_exc(),
                )
                await _abort(context, call, internal_status(incident))
            finally:
                seconds = time.perf_counter() - start
                for observer in self._observers:
                    observer.ended(call, code, seconds)
                call.finish_audit(code)
                self._log(
                    "call",
                    level="error" if code == "INTERNAL" else "info",
                    request_id=call.request_id,
                    trace_id=call.trace_id,
                    caller=call.caller_name,
                    job=call.job,
                    method=method,
                    code=code,
                    ms=round(seconds * 1000, 3),
                    peer=context.peer(),
                )

        return handle

    def _audit(self, call: Call, peer: str, code: str) -> None:
        self._log(
            "audit",
            always=True,
            request_id=call.request_id,
            trace_id=call.trace_id,
            caller=call.caller_name,
            method=call.method,
            job=call.job,
            code=code,
            peer=peer,
        )


def _runner(handler: Handler, input_type: type[Message] | None) -> Any:
    """``handler`` as a coroutine over bytes that writes a stream's answers itself.

    Between two answers it calls ``still_may``, which raises when the caller must get no more.
    """
    function: Any = (  # the stubs know the handlers of the synchronous server only
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )
    deserialize: Any = handler.request_deserializer

    def read(data: bytes) -> Any:
        return decode(data, input_type) if input_type is not None else deserialize(data)

    async def read_all(stream: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for data in stream:
            yield read(data)

    async def run(
        incoming: AsyncIterator[bytes],
        context: Context,
        serialize: Any,
        still_may: Callable[[Context], None],
    ) -> bytes | None:
        streams = handler.request_streaming
        request = read_all(incoming) if streams else read(await _first(incoming))
        name = getattr(request, "name", "")
        if isinstance(name, str) and name.startswith("jobs/"):
            note_job(name)
        if not handler.response_streaming:
            return serialize(await function(request, context))
        if not inspect.isasyncgenfunction(function):
            await function(request, _SerializingContext(context, serialize))
            return None
        answers = function(request, context)
        next_check = time.monotonic() + CHECK_INTERVAL
        try:
            async for answer in answers:
                if time.monotonic() >= next_check:
                    still_may(context)
                    next_check = time.monotonic() + CHECK_INTERVAL
                # Awaited: a reader that is slow holds the producer back instead of filling memory.
                await context.write(serialize(answer))
        finally:
            await answers.aclose()
        return None

    return run


async def _first(stream: AsyncIterator[bytes]) -> bytes:
    async for data in stream:
        return data
    raise QuantdError(
        reason="REQUEST_MISSING",
        message="the call ended without a request message",
        remedy="send one message; an empty one is a message too",
    )


class _SerializingContext:
    """The context for handlers that write their stream's messages themselves."""

    def __init__(self, context: Context, serialize: Any) -> None:
        self._context = context
        self._serialize = serialize

    async def write(self, message: Message) -> None:
        await self._context.write(self._serialize(message))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


async def _refuse(
    _incoming: Any, _context: Context, _serialize: Any, _still_may: Callable[[Context], None]
) -> None:
    raise QuantdError(
        reason="METHOD_NOT_FOUND",
        kind="unimplemented",
        message="this server has no such method",
        remedy="list its services by reflection; a newer server may have it",
    )


async def _abort(context: Context, call: Call, status: Status) -> None:
    metadata = ((REQUEST_ID_KEY, call.request_id), (STATUS_KEY, status.SerializeToString()))
    await context.abort(CODES[status.code], status.message, metadata)


def _request_id(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY and isinstance(value, str) and SANE_REQUEST_ID.fullmatch(value):
            return value
    return str(uuid.uuid4())


def _why_cancelled(context: Context) -> str:
    remaining = context.time_remaining()
    return "CANCELLED" if remaining is None or remaining > 0 else "DEADLINE_EXCEEDED"


def _code_of(context: Context) -> str:
    code: Any = context.code()  # a number, whatever the stubs say
    return code.name if isinstance(code, grpc.StatusCode) else CODES[code].name
