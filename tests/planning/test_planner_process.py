"""Planning in its own process: its answers, and what happens when it dies."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from pathlib import Path

import msgspec
import pytest
from tests import tiny_models
from tests.checkpoint.builders import safetensors_bytes
from tests.hosts import H100
from tests.quantizing import planned, roots_of, specification

from quantd_server.errors import QuantdError
from quantd_server.planning import planner_process
from quantd_server.planning.load_requirements import describe_host
from quantd_server.planning.planner_process import Planner

needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks into /proc")


@pytest.fixture
def source(tmp_path):
    return tiny_models.write(tmp_path / "source")


HOST = describe_host()


class HostSource:
    """Tells the host, and remembers with what."""

    def __init__(self, host=HOST) -> None:
        self.host = host
        self.asked: list[bool] = []

    async def __call__(self, with_torch):
        self.asked.append(with_torch)
        return self.host


def first_process(planner):
    return planner._processes[0]._process


def address_space(pid: int) -> int:
    """Bytes of a process."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[0]
    return int(pages) * resource.getpagesize()


@pytest.fixture
def host() -> HostSource:
    return HostSource()


@pytest.fixture
async def planner(source, host):
    planner = Planner(roots_of(specification(source, "", "gguf")), host)
    await planner.start()
    yield planner
    await planner.close()


async def test_the_same_answers_as_in_process(source, planner) -> None:
    spec = specification(source, "", "bitsandbytes_4bit")
    assert await planner.plan(spec, offset=0, page_size=10_000) == planned(spec, HOST)
    report = await planner.inspect(str(source), offset=0, page_size=3)
    assert report.checkpoint.model_type == "llama"
    assert len(report.tensors) == report.next_offset == 3
    longer = await planner.inspect(str(source), context_length=4096, offset=0, page_size=0)
    assert longer.loads[0].kv_cache_bytes == 32 * report.loads[0].kv_cache_bytes


def environment_of(planner) -> list[bytes]:
    return Path(f"/proc/{first_process(planner).pid}/environ").read_bytes().split(b"\0")


@needs_proc
async def test_it_gets_no_secrets(source, host, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "a-secret")
    planner = Planner(roots_of(specification(source, "", "gguf")), host)
    await planner.start()
    environment = environment_of(planner)
    await planner.close()
    assert b"HF_HUB_OFFLINE=1" in environment
    assert b"HF_TOKEN=a-secret" not in environment


async def test_calls_at_once_get_their_own_answers(source, planner) -> None:
    spec = specification(source, "", "bitsandbytes_4bit")
    reports = await asyncio.gather(
        *(planner.plan(spec, offset=offset, page_size=1) for offset in range(10))
    )
    expected = planned(spec).tensors
    assert [report.tensors[0] for report in reports] == list(expected[:10])


async def test_errors_name_the_fields_of_the_request(tmp_path, planner) -> None:
    missing = specification(tmp_path / "nothing", "", "gguf")
    with pytest.raises(QuantdError) as caught:
        await planner.plan(missing, offset=0, page_size=1)
    assert (caught.value.reason, caught.value.field) == ("SOURCE_NOT_FOUND", "spec.source_uri")
    with pytest.raises(QuantdError) as caught:
        await planner.inspect(str(tmp_path / "nothing"), offset=0, page_size=1)
    assert (caught.value.reason, caught.value.field) == ("SOURCE_NOT_FOUND", "source_uri")


async def test_short_calls_do_not_wait_for_long_ones(source, planner) -> None:
    spec = specification(source, "", "gguf")
    os.kill(first_process(planner).pid, signal.SIGSTOP)
    plans = [asyncio.create_task(planner.plan(spec, offset=0, page_size=n)) for n in (1, 2)]
    await asyncio.sleep(0.05)
    assert [one._process is None for one in planner._processes] == [False, True, True]
    inspection = await planner.inspect(str(source), offset=0, page_size=3)
    assert len(inspection.tensors) == 3
    os.kill(planner._processes[1]._process.pid, signal.SIGSTOP)
    inspections = [
        asyncio.create_task(planner.inspect(str(source), offset=0, page_size=n)) for n in (1, 2)
    ]
    await asyncio.sleep(0.05)
    parsed = await planner.parse_config('{"quant_method": "hqq"}')
    assert parsed.quant_method == "hqq"
    assert not any(task.done() for task in (*plans, *inspections))
    for process in planner._processes[:2]:
        os.kill(process._process.pid, signal.SIGCONT)
    assert [len((await task).tensors) for task in (*plans, *inspections)] == [1, 2, 1, 2]


async def test_one_process_is_enough_for_calls_one_after_the_other(source, planner) -> None:
    await planner.plan(specification(source, "", "gguf"), offset=0, page_size=0)
    await planner.inspect(str(source), offset=0, page_size=0)
    await planner.parse_config("{}")
    assert [one._process is None for one in planner._processes] == [False, True, True]


async def test_the_host_is_the_one_that_is_told(source, planner, host) -> None:
    host.host = H100
    report = await planner.inspect(str(source), offset=0, page_size=0)
    assert {load.device for load in report.loads} >= {"CUDA"}
    spec = specification(source, "", "bitsandbytes_4bit")
    on_card = msgspec.structs.replace(spec, device="CUDA")
    assert (await planner.plan(on_card, offset=0, page_size=0)).plan.device == "CUDA"
    await planner.plan(msgspec.structs.replace(spec, device="CPU"), offset=0, page_size=0)
    # Only what names a device has to wait until torch was asked.
    assert host.asked == [False, True, False]


async def test_a_killed_process_is_replaced(source, planner) -> None:
    first = first_process(planner)
    os.kill(first.pid, signal.SIGKILL)
    await first.wait()
    await planner.inspect(str(source), offset=0, page_size=1)
    assert first_process(planner).pid != first.pid


async def test_a_process_killed_during_a_call_fails_that_call_only(
    tmp_path, source, planner
) -> None:
    process = first_process(planner)
    os.kill(process.pid, signal.SIGSTOP)
    spec = specification(source, "", "gguf")
    call = asyncio.create_task(planner.inspect(str(source), offset=0, page_size=1))
    waiting = asyncio.create_task(planner.plan(spec, offset=0, page_size=2))
    await asyncio.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(QuantdError) as caught:
        await call
    assert caught.value.reason == "PLANNING_FAILED"
    assert len((await waiting).tensors) == 2


@needs_proc
async def test_a_process_that_has_no_memory_left_is_replaced(source, planner) -> None:
    await planner.parse_config("{}")
    process = first_process(planner)
    limit = address_space(process.pid) + (16 << 20)
    resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
    with pytest.raises(QuantdError) as caught:
        await planner.parse_config('{"a": [' + "[]," * 1_000_000 + "[]]}")
    assert caught.value.reason == "PLANNING_FAILED"
    assert first_process(planner) is None
    assert len((await planner.inspect(str(source), offset=0, page_size=2)).tensors) == 2


async def test_a_call_that_takes_too_long_is_ended(source, planner, monkeypatch) -> None:
    monkeypatch.setattr(planner_process, "TIMEOUT_SECONDS", 0.2)
    os.kill(first_process(planner).pid, signal.SIGSTOP)
    with pytest.raises(QuantdError) as caught:
        await planner.inspect(str(source), offset=0, page_size=1)
    assert caught.value.reason == "PLANNING_FAILED"
    monkeypatch.undo()
    assert len((await planner.inspect(str(source), offset=0, page_size=2)).tensors) == 2


async def test_a_cancelled_call_leaves_no_answer_for_the_next(source, planner) -> None:
    os.kill(first_process(planner).pid, signal.SIGSTOP)
    call = asyncio.create_task(planner.inspect(str(source), offset=0, page_size=1))
    await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert len((await planner.inspect(str(source), offset=0, page_size=2)).tensors) == 2


async def test_a_call_cancelled_while_it_waits_disturbs_nobody(source, planner) -> None:
    process = first_process(planner)
    os.kill(process.pid, signal.SIGSTOP)
    first = asyncio.create_task(planner.inspect(str(source), offset=0, page_size=1))
    spec = specification(source, "", "gguf")
    second = asyncio.create_task(planner.plan(spec, offset=0, page_size=2))
    await asyncio.sleep(0.05)
    second.cancel()
    os.kill(process.pid, signal.SIGCONT)
    assert len((await first).tensors) == 1
    with pytest.raises(asyncio.CancelledError):
        await second


async def test_the_event_loop_is_free_during_a_hostile_header(tmp_path, planner) -> None:
    # 60 MB of nested brackets: invalid, but a parser finds out only in the end.
    hostile = tiny_models.write(tmp_path / "hostile")
    header = b'{"a":' + b"[" * 30_000_000 + b"]" * 30_000_000 + b"}"
    (hostile / "model.safetensors").write_bytes(safetensors_bytes(header))
    longest, before = 0.0, time.monotonic()
    call = asyncio.create_task(planner.inspect(str(hostile), offset=0, page_size=1))
    while not call.done():
        await asyncio.sleep(0.01)
        now = time.monotonic()
        longest, before = max(longest, now - before), now
    with pytest.raises(QuantdError):
        await call
    assert longest < 0.5


def about(process, name) -> str:
    return Path(f"/proc/{process.pid}/{name}").read_text()


@needs_proc
async def test_memory_of_the_process_is_limited(source, planner) -> None:
    await planner.inspect(str(source), offset=0, page_size=1)
    limits = about(first_process(planner), "limits")
    (line,) = [line for line in limits.splitlines() if line.startswith("Max address space")]
    assert line.split()[3] == str(planner_process.MEMORY_LIMIT_BYTES)


@needs_proc
async def test_the_process_imports_nothing_heavy(source, planner) -> None:
    await planner.plan(specification(source, "", "bitsandbytes_8bit"), offset=0, page_size=1)
    await planner.plan(specification(source, "", "gguf"), offset=0, page_size=1)
    maps = about(first_process(planner), "maps")
    assert "libtorch" not in maps
    assert "llvmlite" not in maps


async def test_closing_ends_the_process(source) -> None:
    planner = Planner(roots_of(specification(source, "", "gguf")), HostSource())
    await planner.start()
    process = first_process(planner)
    await planner.close()
    assert process.returncode is not None
    await planner.close()
