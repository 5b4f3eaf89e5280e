"""The process: start, what it imports, its addresses, and how it stops."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import stat
import subprocess
import sys
import time

import grpc
import pytest
from tests.api.server_process import COMMAND, environment, server_process
from tests.api.servers import ScriptedJobs, ScriptedPlanner, running

from quantd import v1
from quantd_server.api import lifecycle
from quantd_server.api.addresses import BindError, bind, is_local

HEAVY = ("torch", "transformers", "numba", "numpy", "gguf", "bitsandbytes")


def capabilities(address: str) -> v1.GetCapabilitiesResponse:
    with grpc.insecure_channel(address) as channel:
        stub = v1.QuantizationServiceStub(channel)
        return stub.GetCapabilities(v1.GetCapabilitiesRequest(), timeout=20)


def test_a_server_serves_says_so_and_stops_in_order(tmp_path):
    with server_process(tmp_path) as server:
        assert capabilities(server.address).server.api_versions == ["quantd.v1"]
        serving = server.events("serving")[0]
        assert serving["addresses"] == server.addresses
        assert serving["source_roots"] == [str(tmp_path.resolve())]
        assert server.stop() == 0
        assert server.events("stopping")
        assert server.events("stopped")
        assert not server.events("incident")
        assert not server.events("library")


def test_a_server_imports_nothing_heavy(tmp_path):
    program = (
        "import sys, threading, time, os, signal\n"
        "def look():\n"
        "    import pathlib\n"
        f"    while not pathlib.Path({str(tmp_path / 'ready')!r}).exists(): time.sleep(0.02)\n"
        "    time.sleep(1.5)\n"  # the first capability report is made meanwhile
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "threading.Thread(target=look, daemon=True).start()\n"
        "from quantd_server.cli import main\n"
        "try: main()\n"
        f"finally: print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    result = subprocess.run(
        [
            *(sys.executable, "-c", program, "serve", "--listen", "127.0.0.1:0"),
            *("--ready-file", str(tmp_path / "ready")),
            *("--source-root", str(tmp_path), "--output-root", str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        check=True,
    )
    assert "HEAVY []" in result.stdout
    assert "capabilities.failed" not in result.stderr


def test_a_second_server_on_the_same_port_is_refused(tmp_path):
    with server_process(tmp_path) as server:
        result = subprocess.run(
            [*COMMAND, "--listen", server.address, "--source-root", str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment(),
            cwd=tmp_path,
            check=False,
        )
        assert result.returncode == 2
        assert result.stderr.startswith(f"quantd serve: cannot listen on {server.address}: ")
        assert "Traceback" not in result.stderr
        assert capabilities(server.address).server.instance_id


def test_a_root_that_is_no_folder_is_refused(tmp_path):
    result = subprocess.run(
        [*COMMAND, "--source-root", str(tmp_path / "missing")],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        cwd=tmp_path,
        check=False,
    )
    assert result.returncode == 2
    assert "is not a folder" in result.stderr


def test_a_ready_file_in_no_folder_is_refused(tmp_path):
    result = subprocess.run(
        [*COMMAND, "--listen", "127.0.0.1:0", "--ready-file", str(tmp_path / "missing" / "ready")],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        cwd=tmp_path,
        check=False,
    )
    assert result.returncode == 2
    assert "ready file" in result.stderr


def test_a_unix_socket_is_private_and_removed(tmp_path):
    path = tmp_path / "socket"
    with server_process(tmp_path, listen=f"unix:{path}") as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert capabilities(f"unix:{path}").host.machine
        assert server.stop(signal.SIGINT) == 0
    assert not path.exists()


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path):
    path = tmp_path / "socket"
    with server_process(tmp_path, listen=f"unix:{path}") as server:
        server.process.kill()
        server.process.wait()
    assert path.exists()
    with server_process(tmp_path, listen=f"unix:{path}"):
        with pytest.raises(BindError, match="another server does"):
            bind(f"unix:{path}", lambda _: 1)
        assert capabilities(f"unix:{path}").host.machine


def test_other_files_are_never_replaced_by_a_socket(tmp_path):
    path = tmp_path / "precious"
    path.write_text("x")
    with pytest.raises(BindError, match="no socket"):
        bind(f"unix:{path}", lambda _: 1)
    assert path.read_text() == "x"


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("unix:/a", True),
        ("127.0.0.1:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
    ],
)
def test_which_addresses_are_local(address, local):
    assert is_local(address) is local


@pytest.mark.parametrize("address", ["50051", "host:", ":1", "a:b", "a:70000", "unix:relative"])
def test_addresses_that_mean_nothing(address):
    with pytest.raises(BindError):
        bind(address, lambda _: 1)


def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        def refuse(_: str) -> int:
            raise RuntimeError

        with pytest.raises(BindError, match="taken"):
            bind(f"127.0.0.1:{taken.getsockname()[1]}", refuse)


async def test_watchers_get_their_last_event_before_the_server_stops(tmp_path):
    jobs = ScriptedJobs(endless=True)
    jobs.add("jobs/1")
    async with running(tmp_path, planner=ScriptedPlanner(), jobs=jobs) as server:
        call = v1.JobServiceStub(server.channel).WatchJob(v1.WatchJobRequest(name="jobs/1"))
        seen = 0
        stopping = None
        async for _ in call:
            seen += 1
            if stopping is None:
                stop = lifecycle.stop(server.bound, server.services, 30.0)
                stopping = asyncio.create_task(stop)
        assert seen == jobs.produced
        assert await call.code() is grpc.StatusCode.OK
        await asyncio.wait_for(stopping, 5)


def test_a_second_signal_ends_the_server_at_once(tmp_path):
    # A call that would use the whole grace: a reflection stream that stays open.
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    with (
        server_process(tmp_path, "--grace", "60") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        forever = iter(lambda: _sleep_then_ask(reflection_pb2), None)
        stream = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(forever)
        next(stream)
        server.process.send_signal(signal.SIGTERM)
        _wait_for(lambda: server.events("stopping"))
        assert server.stop() == 0


def _sleep_then_ask(reflection_pb2):
    time.sleep(0.2)
    return reflection_pb2.ServerReflectionRequest(list_services="")


def _wait_for(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_settings_come_from_the_environment_too(tmp_path):
    ready, with_blank = tmp_path / "ready", tmp_path / "a b"
    with_blank.mkdir()
    variables = {
        "QUANTD_LISTEN": "127.0.0.1:0 127.0.0.1:0",
        "QUANTD_READY_FILE": str(ready),
        "QUANTD_SOURCE_ROOTS": f"{tmp_path}:{with_blank}",
        "QUANTD_OUTPUT_ROOTS": str(tmp_path),
        "QUANTD_MAX_QUEUED_JOBS": "7",
    }
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(COMMAND, env={**environment(), **variables}, stderr=output)
    try:
        _wait_for(ready.exists)
        addresses = ready.read_text().split()
        assert len(addresses) == 2
        serving = json.loads(log.read_text().splitlines()[0])
        assert serving["source_roots"] == [str(tmp_path), str(with_blank)]
        assert capabilities(addresses[1]).limits.max_queued_jobs == 7
    finally:
        process.terminate()
        assert process.wait(30) == 0
