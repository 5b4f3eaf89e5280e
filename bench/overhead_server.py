"""quantd's server and, in the same process and on the same event loop, a service that only echoes.

`bench/overhead.py` runs it. The echo is bare: no interceptor, no messages, nothing but gRPC.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # as `quantd serve` does

import grpc

from quantd_server.api.lifecycle import serve
from quantd_server.api.log import Log
from quantd_server.settings import Settings

TIMES = "times"
"""Metadata of a repetition: how often."""


async def call(request: bytes, _context: object) -> bytes:
    """What was sent."""
    return request


async def repeat(request: bytes, context: Any) -> AsyncIterator[bytes]:
    """What was sent, as often as the metadata say."""
    times = int(dict(context.invocation_metadata())[TIMES])
    for _ in range(times):
        yield request


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--echo", required=True, help="address of the echo")
    parser.add_argument("--listen", required=True)
    parser.add_argument("--ready-file", required=True)
    parser.add_argument("--source-root", action="append", required=True)
    parser.add_argument("--output-root", action="append", required=True)
    arguments = parser.parse_args()
    settings = Settings(
        listen=(arguments.listen,),
        ready_file=arguments.ready_file,
        source_roots=tuple(arguments.source_root),
        output_roots=tuple(arguments.output_root),
    )
    log = Log(level=settings.log_level, form=settings.log_format)
    echo = grpc.aio.server()
    handlers: dict[str, Any] = {
        "Call": grpc.unary_unary_rpc_method_handler(call),
        "Repeat": grpc.unary_stream_rpc_method_handler(repeat),
    }
    echo.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", handlers),))
    echo.add_insecure_port(arguments.echo)
    await echo.start()
    try:
        await serve(settings, log)
    finally:
        await echo.stop(None)


if __name__ == "__main__":
    asyncio.run(main())
