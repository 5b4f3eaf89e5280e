"""The runner of the Python client: reads calls as JSON lines, makes them, and writes what comes.

docs/conformance.md has the contract. Runs as a program of its own, with the client alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message

import quantd
from quantd import v1

PATIENCE = quantd.Reconnect(initial_delay=0.05, max_delay=0.5, timeout=120.0)
SERVICES = {
    **v1.quantization_service_pb2.DESCRIPTOR.services_by_name,
    **v1.job_service_pb2.DESCRIPTOR.services_by_name,
}


class Runner:
    """The calls under way, by id."""

    def __init__(self, client: quantd.AsyncClient) -> None:
        self._client = client
        self._calls: dict[str, asyncio.Task[None]] = {}

    async def run(self, lines: asyncio.StreamReader) -> None:
        """Until standard input ends."""
        while line := await lines.readline():
            order = json.loads(line)
            if "cancel" in order:
                if order["cancel"] in self._calls:
                    self._calls[order["cancel"]].cancel()
                continue
            task = asyncio.create_task(self._answer(order))
            self._calls[order["id"]] = task
            task.add_done_callback(lambda _, number=order["id"]: self._calls.pop(number))
        for call in self._calls.values():
            call.cancel()

    async def _answer(self, order: dict[str, Any]) -> None:
        number = order["id"]
        try:
            async with asyncio.timeout(order.get("timeout_seconds")):
                say(number, **await self._call(number, order["rpc"], order["request"]))
        except quantd.QuantdError as error:
            say(number, error=described(error))
        except asyncio.CancelledError:
            say(number, error={"code": "CANCELLED"})
        except TimeoutError:
            say(number, error={"code": "DEADLINE_EXCEEDED"})

    async def _call(self, number: str, rpc: str, request: dict[str, Any]) -> dict[str, Any]:
        service, _, method = rpc.partition("/")
        kind = SERVICES[service.rpartition(".")[2]].methods_by_name[method]
        message = getattr(v1, kind.input_type.name)()
        json_format.ParseDict(request, message)
        if not kind.server_streaming:
            return {"reply": as_json(await self._client.call(message))}
        async for event in await self._client.follow(message):
            say(number, event=as_json(event))
        return {"end": True}


def described(error: quantd.QuantdError) -> dict[str, Any]:
    """What the harness compares of an error."""
    violations = [
        {"field": each.field, "reason": each.reason, "description": each.message}
        for each in error.violations
    ]
    violations += [
        {"field": each.subject, "reason": each.reason, "description": each.message}
        for each in error.preconditions
    ]
    return {
        "code": error.code.name,
        "reason": error.reason,
        "message": error.message,
        "violations": violations,
        "retryable": error.retryable,
    }


def as_json(message: Message) -> Any:
    """The standard mapping."""
    return json_format.MessageToDict(message)


def say(number: str, **what: Any) -> None:
    """One line."""
    sys.stdout.write(json.dumps({"id": number, **what}) + "\n")
    sys.stdout.flush()


async def main() -> None:
    """Connects, and answers until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--token", type=Path, help="file that holds the token")
    parser.add_argument("--ca", type=Path, help="PEM of the authority to trust; implies TLS")
    options = parser.parse_args()
    lines = asyncio.StreamReader(limit=64 << 20)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    token = options.token.read_text().strip() if options.token else None
    async with quantd.AsyncClient(
        options.address,
        token=token,
        root_certificates=options.ca,
        timeout=None,
        reconnect=PATIENCE,
    ) as client:
        await Runner(client).run(lines)


if __name__ == "__main__":
    grpc.aio.init_grpc_aio()
    asyncio.run(main())
