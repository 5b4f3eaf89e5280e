"""One server process from its first to its last moment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from quantd_server import __version__
from quantd_server.api.addresses import is_local, remove_socket
from quantd_server.api.capabilities import Capabilities
from quantd_server.api.error_codec import MAX_VIOLATIONS
from quantd_server.api.log import Log
from quantd_server.api.server import BoundServer, Services, build
from quantd_server.api.telemetry import Telemetry
from quantd_server.api.transport import check_exposure, missing_protection
from quantd_server.host.cpu import usable_cores
from quantd_server.host.memory import describe_memory
from quantd_server.host.system import this_system
from quantd_server.jobs.job import StoredJob
from quantd_server.jobs.service import JobService
from quantd_server.jobs.state_folder import StateFolder
from quantd_server.jobs.store import JobStore
from quantd_server.planning.planner_process import Planner
from quantd_server.planning.roots import Roots
from quantd_server.settings import Settings

if TYPE_CHECKING:
    from quantd_server.host.description import Host
    from quantd_server.planning.capability_report import CapabilityReporter

API_VERSIONS = ("quantd.v1",)
FORCED_CALL_GRACE = 0.0


class SettingsError(Exception):
    """A setting does not fit this host; the message says which and why."""


async def serve(settings: Settings, log: Log) -> None:
    """Serve until SIGTERM or SIGINT, then stop in order; a second signal stops at once.

    Raises BindError, SettingsError, or QuantdError for the state folder, when the server cannot
    start.
    """
    check_exposure(settings)  # raises QuantdError, as what is read for access does
    roots = checked_roots(settings)
    _check_ready_file(settings)
    services = make_services(settings, roots, log)
    telemetry = Telemetry(settings, services.jobs, log)
    with _signals() as signals:
        bound = build(settings, services, log, telemetry.call_observers)
        try:
            metrics = await telemetry.start()
            await services.jobs.start(lambda job: check_roots(job, roots))
            await start(bound)
            _announce(settings, roots, bound, metrics, log)
            await warm_up(services)
            await signals.get()
            log("stopping", grace_seconds=settings.grace)
            await _stop(settings, bound, services, signals)
        finally:
            await telemetry.close()
            for address in bound.addresses:
                remove_socket(address)
    log("stopped")


def checked_roots(settings: Settings) -> Roots:
    """The allowed folders. Raises SettingsError."""
    roots = Roots.of(settings.source_roots, settings.output_roots)
    for kind, paths, mode in (
        ("source", roots.sources, os.R_OK | os.X_OK),
        ("output", roots.outputs, os.W_OK | os.X_OK),
    ):
        for path in paths:
            if not Path(path).is_dir():
                raise SettingsError(
                    f"{kind} root {path} is not a folder; create it or name another"
                )
            if not os.access(path, mode):
                raise SettingsError(f"{kind} root {path} is not accessible to this user")
    return roots


def _check_ready_file(settings: Settings) -> None:
    if settings.ready_file and not Path(settings.ready_file).absolute().parent.is_dir():
        raise SettingsError(f"the folder of the ready file {settings.ready_file} does not exist")


def check_roots(job: StoredJob, roots: Roots) -> None:
    """Raises QuantdError where the roots of the server before allowed what ours do not."""
    for path in (job.source_path, *job.paths.values()):
        roots.source(path)
    roots.output(job.output_path)


def make_services(settings: Settings, roots: Roots, log: Log) -> Services:
    """What the servicers delegate to, not started yet. Raises QuantdError as the store does."""
    start_time = time.time()
    state = StateFolder(settings.state_folder, log) if settings.state_folder else None
    jobs = JobService(
        max_running=settings.max_running_jobs,
        max_queued=settings.max_queued_jobs,
        max_finished=settings.max_finished_jobs,
        max_events=settings.max_events_per_job,
        heartbeat_interval=settings.heartbeat_interval,
        threads=settings.threads or usable_cores(),
        memory_bytes=describe_memory(this_system()).available,
        log=log,
        store=JobStore(state.store if state else None, max_events=settings.max_events_per_job),
        workers_lock=state.workers_lock if state else None,
    )
    capabilities = Capabilities(lambda: _make_reporter(settings, start_time), log)

    async def host(with_torch: bool) -> Host:  # noqa: FBT001 - the planner's form
        return await capabilities.host(with_torch=with_torch)

    return Services(
        planner=Planner(roots, host, settings.threads),
        jobs=jobs,
        capabilities=capabilities,
        state=state,
    )


def _make_reporter(settings: Settings, start_time: float) -> CapabilityReporter:
    # Imported when the server serves already: all methods come with it.
    from quantd_server.planning.capability_report import CapabilityReporter, Limits, ServerInfo
    from quantd_server.planning.load_requirements import describe_host

    server = ServerInfo(
        version=__version__,
        api_versions=API_VERSIONS,
        instance_id=str(uuid.uuid4()),
        start_time=start_time,
    )
    limits = Limits(
        max_request_bytes=settings.max_request_bytes,
        max_running_jobs=settings.max_running_jobs,
        max_queued_jobs=settings.max_queued_jobs,
        max_finished_jobs=settings.max_finished_jobs,
        max_events_per_job=settings.max_events_per_job,
        heartbeat_interval=settings.heartbeat_interval,
        max_violations=MAX_VIOLATIONS,
    )
    return CapabilityReporter(server, limits, describe_host())


async def start(bound: BoundServer) -> None:
    """Take calls and say so."""
    await bound.server.start()
    await bound.health.serve()


async def warm_up(services: Services) -> None:
    """Prepare what the first calls would otherwise wait for."""
    services.capabilities.start()
    await services.planner.start()


async def stop(bound: BoundServer, services: Services, grace: float) -> None:
    """Stop in the order in which clients can follow.

    Load balancers are told first; then the jobs end, or wait for the next server, so that each
    watcher gets its last event and its stream ends by itself; then the calls that are left get
    ``grace`` seconds.
    """
    await bound.health.close()
    await services.jobs.stop(grace)
    await bound.server.stop(grace)
    await services.planner.close()
    await services.capabilities.close()
    if services.state is not None:
        services.state.close()


async def _stop(
    settings: Settings, bound: BoundServer, services: Services, signals: asyncio.Queue[int]
) -> None:
    orderly = asyncio.create_task(stop(bound, services, settings.grace))
    forced = asyncio.create_task(signals.get())
    await asyncio.wait({orderly, forced}, return_when=asyncio.FIRST_COMPLETED)
    if forced.done():
        orderly.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await orderly
        await stop(bound, services, FORCED_CALL_GRACE)
    else:
        forced.cancel()
        await orderly


@contextlib.contextmanager
def _signals() -> Iterator[asyncio.Queue[int]]:
    """A queue of the signals that ask this process to end."""
    loop = asyncio.get_running_loop()
    received: asyncio.Queue[int] = asyncio.Queue()
    ends = (signal.SIGTERM, signal.SIGINT)
    for number in ends:
        loop.add_signal_handler(number, received.put_nowait, number)
    try:
        yield received
    finally:
        for number in ends:
            loop.remove_signal_handler(number)


def _announce(
    settings: Settings, roots: Roots, bound: BoundServer, metrics: str | None, log: Log
) -> None:
    """Say that we serve: a line in the log for people and programs, and the ready file."""
    log(
        "serving",
        addresses=bound.addresses,
        metrics=f"http://{metrics}/metrics" if metrics else None,
        source_roots=roots.sources,
        output_roots=roots.outputs,
        state_folder=settings.state_folder,
        pid=os.getpid(),
    )
    missing = missing_protection(settings)
    if missing is not None:  # and --insecure allowed it
        log("exposed", level="warning", reason=missing.reason, message=missing.message)
    if metrics is not None and not is_local(metrics):
        log(
            "metrics.exposed",
            level="warning",
            message=f"whoever reaches {metrics} can read the metrics: they need no credentials",
        )
    if settings.ready_file:
        ready = Path(settings.ready_file)
        partial = ready.with_name(f".{ready.name}.{os.getpid()}")
        partial.write_text("".join(f"{address}\n" for address in bound.addresses), encoding="utf-8")
        partial.rename(ready)  # whoever sees it sees all of it
