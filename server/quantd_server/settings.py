"""Everything that an operator can set; ``quantd serve --help`` says how."""

from __future__ import annotations

from typing import Literal

import msgspec

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "text"]

DEFAULT_ADDRESS = "127.0.0.1:50051"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one server process. Sizes are in bytes, times in seconds."""

    listen: tuple[str, ...] = (DEFAULT_ADDRESS,)
    """Addresses: "host:port" (port 0: any free one) or "unix:/path"."""
    tls_certificate: str | None = None
    """PEM file of the server's certificate chain; with ``tls_key`` calls are encrypted."""
    tls_key: str | None = None
    client_ca: str | None = None
    """PEM file of the authorities whose certificates every client has to have one of."""
    tokens: str | None = None
    """File of the tokens that callers may have; see ``api/token_file.py``."""
    insecure: bool = False
    """Whether addresses beyond this host may lack credentials or encryption."""
    max_calls_per_second: float = 100.0
    """Of one caller who is known by name; 0 for no limit."""
    source_roots: tuple[str, ...] = (".",)
    """Folders that requests may read from."""
    output_roots: tuple[str, ...] = (".",)
    """Folders that requests may write to."""
    state_folder: str | None = None
    """Folder that jobs are kept in; None: in memory, and they end with the server."""
    max_request_bytes: int = 4 << 20
    max_concurrent_calls: int = 1024
    """Calls served at once, streams among them; more are answered RESOURCE_EXHAUSTED."""
    max_running_jobs: int = 1
    max_queued_jobs: int = 64
    max_finished_jobs: int = 256
    max_events_per_job: int = 20_000
    heartbeat_interval: float = 10.0
    grace: float = 10.0
    """How long calls and workers may go on once the server was asked to stop."""
    threads: int | None = None
    """Threads of one job; None for all cores that the process may use."""
    metrics_listen: str | None = None
    """Address, "host:port", that metrics are scraped from; None: there are none."""
    log_level: LogLevel = "info"
    log_format: LogFormat = "json"
    ready_file: str | None = None
    """File that gets the bound addresses, one a line, when the server serves."""
