"""Planning in a process of its own.

Reading headers is quick but is work for the processor, and a hostile header is a lot of it: done
here it blocks no other call, and whatever it does to this process, the server goes on with a new
one. ``python -m quantd_server.planning.planner_process`` is the other end, for one call at a time;
more processes start only when calls would have to wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from quantd_server.engine.specification import QuantizationSpec
from quantd_server.errors import Finding, QuantdError
from quantd_server.host.description import Host
from quantd_server.host.process_environment import process_environment
from quantd_server.planning.config_parsing.parsed import ParsedConfig
from quantd_server.planning.report import InspectionReport, PlanReport
from quantd_server.planning.roots import Roots

TIMEOUT_SECONDS = 60.0
"""Longest time for one answer; the process is replaced then."""

MEMORY_LIMIT_BYTES = 4 << 30
"""Address space of the process: a header that needs more is refused."""

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Variables that keep libraries from reserving address space for threads on every core."""

MAX_LINE_BYTES = 256 << 20


class PlanCall(msgspec.Struct, frozen=True, kw_only=True, tag="plan"):
    """Ask for a plan."""

    spec: QuantizationSpec
    roots: Roots
    host: Host
    offset: int
    page_size: int
    threads: int | None


class InspectCall(msgspec.Struct, frozen=True, kw_only=True, tag="inspect"):
    """Ask about a checkpoint."""

    source_uri: str
    roots: Roots
    host: Host
    context_length: int | None
    offset: int
    page_size: int


class ParseConfigCall(msgspec.Struct, frozen=True, kw_only=True, tag="parse_config"):
    """Ask what a `quantization_config` means: a megabyte of JSON is work, too."""

    text: str


Call = PlanCall | InspectCall | ParseConfigCall


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag="answer"):
    """What was asked for."""

    value: msgspec.Raw


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag="refusal"):
    """Why there is no answer."""

    finding: Finding


class Fault(msgspec.Struct, frozen=True, kw_only=True, tag="fault"):
    """A fault of ours, which the process has logged."""


Reply = Answer | Refusal | Fault


_decode_reply = msgspec.json.Decoder(Reply).decode


PROCESSES_ALLOWED: dict[type[Call], int] = {PlanCall: 1, InspectCall: 2, ParseConfigCall: 3}
"""How many of the processes a call may choose from; the quicker its kind, the more.

So a plan, which may take long, keeps no inspection waiting, and neither keeps a parsing waiting.
"""


class Planner:
    """The server's end. Every method belongs to the event loop."""

    def __init__(
        self,
        roots: Roots,
        host: Callable[[bool], Awaitable[Host]],
        threads: int | None = None,
    ) -> None:
        """``host`` tells what the host has; its argument: with what torch can use. ``threads`` is
        as in ``planner.plan``.
        """
        self._roots = roots
        self._host = host
        self._threads = threads
        self._processes = tuple(PlannerProcess() for _ in PROCESSES_ALLOWED)

    async def start(self) -> None:
        """Start the first process ahead of the first call; the others start when it is busy."""
        await self._processes[0].start()

    async def plan(
        self, spec: QuantizationSpec, *, offset: int, page_size: int, roots: Roots | None = None
    ) -> PlanReport:
        """See ``planner.plan``. Waits for what torch tells when the spec names a device.

        ``roots`` are those of the caller, if it may not use all of the server's.
        """
        call = PlanCall(
            spec=spec,
            roots=roots or self._roots,
            host=await self._host(spec.device not in (None, "CPU")),
            offset=offset,
            page_size=page_size,
            threads=self._threads,
        )
        return msgspec.json.decode(await self._call(call), type=PlanReport)

    async def inspect(
        self,
        source_uri: str,
        *,
        context_length: int | None = None,
        offset: int,
        page_size: int,
        roots: Roots | None = None,
    ) -> InspectionReport:
        """See ``inspection.inspect``; ``roots`` as in ``plan``."""
        call = InspectCall(
            source_uri=source_uri,
            roots=roots or self._roots,
            host=await self._host(False),
            context_length=context_length,
            offset=offset,
            page_size=page_size,
        )
        return msgspec.json.decode(await self._call(call), type=InspectionReport)

    async def parse_config(self, text: str) -> ParsedConfig:
        """See ``config_parsing.parse_config``."""
        return msgspec.json.decode(await self._call(ParseConfigCall(text=text)), type=ParsedConfig)

    async def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            await process.close()

    async def _call(self, call: Call) -> bytes:
        allowed = self._processes[: PROCESSES_ALLOWED[type(call)]]
        # None is free: the last one, which has the shortest calls.
        process = next((process for process in allowed if not process.is_busy), allowed[-1])
        return await process.answer(call)


class PlannerProcess:
    """One process, which answers one call at a time. It starts with the first one."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    @property
    def is_busy(self) -> bool:
        """Whether a further call would wait."""
        return self._lock.locked()

    async def start(self) -> None:
        """Start ahead of the first call."""
        async with self._lock:
            await self._ensure_running()

    async def close(self) -> None:
        """End it."""
        async with self._lock:
            await self._end()

    async def answer(self, call: Call) -> bytes:
        """The answer's JSON. Raises QuantdError with the refusal, or that it took too much."""
        async with self._lock:
            process = await self._ensure_running()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(msgspec.json.encode(call) + b"\n")
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    await process.stdin.drain()
                    line = await process.stdout.readline()
            except (TimeoutError, OSError, ValueError, asyncio.CancelledError) as error:
                # Its answer may still come, and would be taken for that of the next call.
                await self._end()
                if isinstance(error, asyncio.CancelledError):
                    raise
                line = b""
            if not line:
                await self._end()
                raise _too_hard(call)
            reply: Reply = _decode_reply(line)
            if isinstance(reply, Refusal) and reply.finding.reason == "PLANNING_FAILED":
                # Out of memory. Some of it may be what the calls before have left behind.
                await self._end()
        match reply:
            case Answer():
                return bytes(reply.value)
            case Refusal():
                raise QuantdError.from_finding(reply.finding)
            case Fault():
                raise RuntimeError("planning failed; the server's standard error says how")

    async def _ensure_running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                __name__,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=MAX_LINE_BYTES,
                start_new_session=True,
                env=process_environment(**ONE_THREAD),
            )
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _too_hard(call: Call) -> QuantdError:
    if isinstance(call, ParseConfigCall):
        return QuantdError(
            reason="PLANNING_FAILED",
            field="config_json",
            kind="precondition",
            message=f"the text takes more time or memory than is allowed ({TIMEOUT_SECONDS:g} s, "
            f"{MEMORY_LIMIT_BYTES >> 30} GiB)",
            remedy="send the quantization_config alone",
        )
    return QuantdError(
        reason="PLANNING_FAILED",
        field="spec.source_uri",
        kind="precondition",
        message="the headers of the source, or the calibration data, take more time or memory than "
        f"is allowed ({TIMEOUT_SECONDS:g} s, {MEMORY_LIMIT_BYTES >> 30} GiB)",
        remedy="check the source: a damaged file, or a chat template, can look like an endless "
        "one; ask for less calibration data",
    )


def _answer(call: Call) -> Reply:
    # Imported here, so that the server, which imports this module, stays free of them.
    from quantd_server.planning.config_parsing.parsing import parse_config
    from quantd_server.planning.inspection import inspect
    from quantd_server.planning.planner import plan

    report: Any
    try:
        match call:
            case PlanCall():
                report = plan(
                    call.spec,
                    call.roots,
                    call.host,
                    offset=call.offset,
                    page_size=call.page_size,
                    threads=call.threads,
                )
            case InspectCall():
                report = inspect(
                    call.source_uri,
                    call.roots,
                    call.host,
                    context_length=call.context_length,
                    offset=call.offset,
                    page_size=call.page_size,
                )
            case ParseConfigCall():
                report = parse_config(call.text)
        return Answer(value=msgspec.Raw(msgspec.json.encode(report)))
    except QuantdError as error:
        finding = error.finding
        if isinstance(call, InspectCall):  # whose request has no `spec`
            field = finding.field.removeprefix("spec.")
            finding = msgspec.structs.replace(finding, field=field)
        return Refusal(finding=finding)
    except MemoryError:
        return Refusal(finding=_too_hard(call).finding)
    except Exception:  # noqa: BLE001 - one bad source must not end the process for the others
        traceback.print_exc()
        return Fault()


def main() -> None:
    """Answer the calls on standard input until it ends."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    for room in ("inspection", "planner"):  # now, so that the first call need not wait for it
        importlib.import_module(f"quantd_server.planning.{room}")
    decode = msgspec.json.Decoder(Call).decode
    for line in sys.stdin.buffer:
        reply = _answer(decode(line))
        sys.stdout.buffer.write(msgspec.json.encode(reply) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
