"""Runs the process that asks torch (``torch_build``). Whatever it does, the answer is a value."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import Sequence

import msgspec

from quantd_server.host.process_environment import process_environment
from quantd_server.host.torch_build import LIMIT_SECONDS, TorchBuild

COMMAND = (sys.executable, "-m", "quantd_server.host.torch_build")
MAX_BYTES = 1 << 16
MAX_FAILURE = 300
"""Characters of a failure that are passed on."""

_PATH = re.compile(r"(?:/[^\s:'\"]+)+/")
"""Folders, which are nobody's business outside; the file's name stays."""

_decode = msgspec.json.Decoder(TorchBuild).decode


async def probe_torch(command: Sequence[str] = COMMAND, limit: float = LIMIT_SECONDS) -> TorchBuild:
    """Ask a process; never raises but when cancelled. The process is gone afterwards.

    ``limit`` in seconds.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=MAX_BYTES,
            start_new_session=True,
            env=process_environment(OMP_NUM_THREADS="1"),
        )
    except OSError as error:
        return TorchBuild(failure=f"cannot start a process: {error.strerror}")
    assert process.stdout is not None
    try:
        async with asyncio.timeout(limit):
            line = await process.stdout.readline()
            status = await process.wait() if not line.strip() else 0
    except TimeoutError:
        return TorchBuild(failure=f"importing it took longer than {limit:g} s")
    except (OSError, ValueError):  # a line without an end
        return TorchBuild(failure="its answer was not understood")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if not line.strip():
        return TorchBuild(failure=f"importing it ended the process with status {status}")
    try:
        build = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return TorchBuild(failure="its answer was not understood")
    return msgspec.structs.replace(build, failure=_presentable(build.failure))


def _presentable(text: str) -> str:
    """One line, not long, without the folders of this machine."""
    return _PATH.sub("", " ".join(text.split()))[:MAX_FAILURE]
