"""The gRPC server: its services, options and limits. Nothing in here starts or stops it."""

from __future__ import annotations

import functools
from typing import Any

import grpc.aio
import msgspec
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from quantd import v1
from quantd.v1 import job_service_pb2, quantization_service_pb2
from quantd_server.api.access import Access
from quantd_server.api.addresses import UNIX_PREFIX, bind
from quantd_server.api.capabilities import Capabilities
from quantd_server.api.health import Health
from quantd_server.api.interceptor import CallObserver, OutermostInterceptor
from quantd_server.api.job_servicer import JobServicer
from quantd_server.api.log import Log
from quantd_server.api.quantization_servicer import QuantizationServicer
from quantd_server.api.request_checks import compile_rules
from quantd_server.api.transport import server_credentials
from quantd_server.jobs.service import JobService
from quantd_server.jobs.state_folder import StateFolder
from quantd_server.planning.planner_process import Planner
from quantd_server.settings import Settings

# protobuf's stubs call a file's descriptor by two unrelated classes.
OWN_FILES: tuple[Any, ...] = (
    quantization_service_pb2.DESCRIPTOR,
    job_service_pb2.DESCRIPTOR,
)
SERVED_FILES: tuple[Any, ...] = (
    *OWN_FILES,
    health_pb2.DESCRIPTOR,
    reflection_pb2.DESCRIPTOR,
)


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """What the servicers delegate to."""

    planner: Planner
    jobs: JobService
    capabilities: Capabilities
    state: StateFolder | None = None
    """Where the jobs are kept, if they are."""


class BoundServer(msgspec.Struct, frozen=True, kw_only=True):
    """A server that has its addresses and is not started yet."""

    server: grpc.aio.Server
    health: Health
    addresses: tuple[str, ...]


def build(
    settings: Settings, services: Services, log: Log, observers: tuple[CallObserver, ...] = ()
) -> BoundServer:
    """The server with all its services; ``observers`` hear of its calls.

    Raises BindError, or QuantdError as ``server_credentials`` and ``Access.of`` do.
    """
    server = grpc.aio.server(
        interceptors=[
            OutermostInterceptor(log, Access.of(settings, log), input_types(), observers)
        ],
        options=channel_options(settings),
        maximum_concurrent_rpcs=settings.max_concurrent_calls,
    )
    # Bound before anything else: a taken port is what most often goes wrong.
    add_port = functools.partial(_add_port, server, settings, log)
    addresses = tuple(bind(address, add_port) for address in settings.listen)
    v1.add_QuantizationServiceServicer_to_server(
        QuantizationServicer(services.planner, services.jobs, services.capabilities), server
    )
    v1.add_JobServiceServicer_to_server(JobServicer(services.jobs), server)
    health = Health(service_names(OWN_FILES))
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection.enable_server_reflection(service_names(SERVED_FILES), server)
    compile_rules(
        method.input_type
        for file in OWN_FILES
        for service in file.services_by_name.values()
        for method in service.methods
    )
    return BoundServer(server=server, health=health, addresses=addresses)


def _add_port(server: grpc.aio.Server, settings: Settings, log: Log, address: str) -> int:
    # Each address needs its own: grpc takes credentials that can be renewed for one alone.
    credentials = server_credentials(settings, log)
    # What goes through a socket of this host's kernel is read by nobody else, and clients would
    # look for the path of the socket in the certificate.
    if credentials is None or address.startswith(UNIX_PREFIX):
        return server.add_insecure_port(address)
    return server.add_secure_port(address, credentials)


def channel_options(settings: Settings) -> list[tuple[str, Any]]:
    """Options of the transport."""
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.max_request_bytes),
        ("grpc.max_send_message_length", -1),
        # Finds clients that are gone without a word, behind a NAT for example.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Lets clients ping a quiet stream this often; faster ones are disconnected.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def service_names(files: tuple[Any, ...]) -> tuple[str, ...]:
    """Full names of the services in ``files``."""
    return tuple(service.full_name for file in files for service in file.services_by_name.values())


def input_types() -> dict[str, type[Message]]:
    """Request class of every method served, by "/service/method"."""
    return {
        f"/{service.full_name}/{method.name}": GetMessageClass(method.input_type)
        for file in SERVED_FILES
        for service in file.services_by_name.values()
        for method in service.methods
    }
