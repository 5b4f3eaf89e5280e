"""The answer of GetCapabilities: from memory, renewed while asked, never waiting for torch."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from tests.hosts import CPU_BUILD, CUDA_BUILD, H100, with_packages, with_torch

from quantd import v1
from quantd_server.api import capabilities as module
from quantd_server.api.capabilities import Capabilities
from quantd_server.api.log import Log
from quantd_server.errors import QuantdError
from quantd_server.host.torch_build import TorchBuild
from quantd_server.planning.capability_report import CapabilityReporter, Limits, ServerInfo

SERVER = ServerInfo(version="1", api_versions=(), instance_id="x", start_time=0.0)
LIMITS = msgspec.convert(
    dict.fromkeys(Limits.__struct_fields__, 1),
    Limits,
    strict=False,
)


class Reporter(CapabilityReporter):
    """Examines a simulated H100, of which less is free each time."""

    def __init__(self) -> None:
        super().__init__(SERVER, LIMITS, with_torch(H100, None))
        self.examined = 0
        self.failing = False
        self.devices = H100.devices
        self.packages_asked = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def examine(self, torch: TorchBuild | None, *, packages: bool = False) -> None:
        assert threading.current_thread() is not threading.main_thread()
        self.may_go_on.wait(10)
        if self.failing:
            raise OSError("the driver fell over")
        self.examined += 1
        host = H100
        if packages:
            self.packages_asked += 1
            host = with_packages(H100, vllm="")
        devices = tuple(
            msgspec.structs.replace(device, memory_free_bytes=1000 - self.examined)
            for device in self.devices
        )
        self.host = msgspec.structs.replace(host, devices=devices, torch=torch)


class Probe:
    """Tells CUDA_BUILD when it is allowed to."""

    def __init__(self, answer: TorchBuild = CUDA_BUILD) -> None:
        self.answer = answer
        self.calls = 0
        self.allowed = asyncio.Event()

    async def __call__(self) -> TorchBuild:
        self.calls += 1
        await self.allowed.wait()
        return self.answer


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Setting:
    """A Capabilities with everything around it."""

    def __init__(self) -> None:
        self.reporter = Reporter()
        self.probe = Probe()
        self.clock = Clock()
        self.log = io.StringIO()
        self.capabilities = Capabilities(
            lambda: self.reporter,
            Log(stream=self.log),
            probe=self.probe,
            clock=self.clock,
        )

    async def free(self, **options: Any) -> int:
        answer = await self.capabilities.current(**options)
        return answer.devices[1].memory_free_bytes

    async def state(self) -> str:
        return v1.TorchState.Name((await self.capabilities.current()).torch.state)


@pytest.fixture
async def setting(monkeypatch) -> AsyncIterator[Setting]:
    monkeypatch.setattr(module, "REFRESH_SECONDS", 0.02)
    setting = Setting()
    yield setting
    setting.reporter.may_go_on.set()
    await setting.capabilities.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - looks at what a thread does
            await asyncio.sleep(0.005)


async def test_the_first_answer_is_waited_for(setting):
    setting.reporter.may_go_on.clear()
    setting.capabilities.start()
    call = asyncio.create_task(setting.free())
    await asyncio.sleep(0.05)
    assert not call.done()
    setting.reporter.may_go_on.set()
    assert await call == 999


async def test_figures_are_renewed_in_the_background_while_somebody_asks(setting):
    setting.capabilities.start()
    first = await setting.free()
    await until(lambda: setting.reporter.examined > 3)
    assert await setting.free() < first


async def test_nobody_asks_and_nothing_is_examined(setting):
    setting.capabilities.start()
    await setting.free()
    setting.probe.allowed.set()
    await until(lambda: setting.capabilities._torch is not None)
    setting.clock.now += module.ATTENTION_SECONDS + 1
    await asyncio.sleep(0.1)
    examined = setting.reporter.examined
    await asyncio.sleep(0.1)
    assert setting.reporter.examined == examined
    # The next one to ask gets figures of now, and the keeper goes on.
    assert await setting.free() <= 1000 - (examined + 1)
    await until(lambda: setting.reporter.examined > examined + 2)


async def test_a_driver_that_hangs_delays_one_call_by_a_moment(setting, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.05)
    setting.capabilities.start()
    await setting.free()
    setting.reporter.may_go_on.clear()
    await asyncio.sleep(0.05)
    setting.clock.now += module.ATTENTION_SECONDS + 1
    begun = time.monotonic()
    free = await setting.free()
    assert 0.04 < time.monotonic() - begun < 2
    assert free == 1000 - setting.reporter.examined
    setting.reporter.may_go_on.set()


async def test_a_failure_keeps_the_old_answer_and_none_is_an_error(setting):
    setting.reporter.failing = True
    setting.capabilities.start()
    with pytest.raises(QuantdError) as caught:
        await setting.free()
    assert caught.value.reason == "CAPABILITIES_UNKNOWN"
    setting.reporter.failing = False
    await until(lambda: setting.reporter.examined > 0)
    await until(lambda: setting.capabilities._answer is not None)
    last = await setting.free()
    setting.reporter.failing = True
    await asyncio.sleep(0.1)
    assert await setting.free() <= last
    assert "capabilities.failed" in setting.log.getvalue()


async def test_torch_is_asked_once_and_nobody_waits_for_it(setting):
    setting.capabilities.start()
    assert await setting.state() == "TORCH_STATE_PENDING"
    answer = await setting.capabilities.current()
    assert list(answer.methods[0].devices) == [v1.DeviceKind.DEVICE_KIND_CPU]
    assert not answer.devices[1].unmet
    setting.probe.allowed.set()
    await until(setting.capabilities._torch_known.is_set)
    assert await setting.state() == "TORCH_STATE_KNOWN"
    answer = await setting.capabilities.current()
    assert answer.methods[0].devices[0] == v1.DeviceKind.DEVICE_KIND_CUDA
    await asyncio.sleep(0.1)
    assert setting.probe.calls == 1


async def test_a_torch_that_cannot_use_the_card(setting):
    setting.probe.answer = CPU_BUILD
    setting.probe.allowed.set()
    setting.capabilities.start()
    await setting.capabilities.host(with_torch=True)
    answer = await setting.capabilities.current()
    assert [unmet.reason for unmet in answer.devices[1].unmet] == ["TORCH_BUILT_FOR_OTHER_DEVICE"]
    assert list(answer.methods[0].devices) == [v1.DeviceKind.DEVICE_KIND_CPU]


async def test_who_needs_the_host_with_torch_waits(setting):
    setting.capabilities.start()
    waiting = asyncio.create_task(setting.capabilities.host(with_torch=True))
    await until(lambda: setting.probe.calls == 1)
    assert not waiting.done()
    setting.probe.allowed.set()
    assert (await waiting).torch == CUDA_BUILD


async def test_with_a_gpu_torch_is_asked_before_anybody_wants_to_know(setting):
    setting.capabilities.start()
    await until(lambda: setting.probe.calls == 1)


@pytest.mark.parametrize("who", ["GetCapabilities", "a plan that names a device"])
async def test_without_a_gpu_torch_is_asked_when_somebody_wants_to_know(setting, who):
    setting.reporter.devices = H100.devices_of("CPU")
    setting.capabilities.start()
    assert (await setting.capabilities.host()).torch is None
    await asyncio.sleep(0.1)
    assert setting.probe.calls == 0
    if who == "GetCapabilities":
        assert await setting.state() == "TORCH_STATE_PENDING"  # and it does not wait
    else:
        asking = asyncio.create_task(setting.capabilities.host(with_torch=True))
    await until(lambda: setting.probe.calls == 1)
    setting.probe.allowed.set()
    await until(setting.capabilities._torch_known.is_set)
    assert await setting.state() == "TORCH_STATE_KNOWN"
    if who != "GetCapabilities":
        assert (await asking).torch == CUDA_BUILD
    assert setting.probe.calls == 1


async def test_a_refresh_looks_for_packages_and_asks_torch_again(setting):
    setting.probe.allowed.set()
    setting.capabilities.start()
    await setting.capabilities.host(with_torch=True)
    setting.probe.allowed.clear()
    answer = await setting.capabilities.current(refresh=True)
    assert setting.reporter.packages_asked == 1
    assert answer.torch.state == v1.TorchState.TORCH_STATE_PENDING
    await setting.capabilities.current(refresh=True)  # while it is being asked
    setting.probe.allowed.set()
    await until(setting.capabilities._torch_known.is_set)
    assert await setting.state() == "TORCH_STATE_KNOWN"
    assert setting.probe.calls == 2


async def test_closing_ends_the_probe(setting):
    setting.capabilities.start()
    await until(lambda: setting.probe.calls == 1)
    waiting = asyncio.create_task(setting.capabilities.host(with_torch=True))
    await asyncio.sleep(0.01)
    await setting.capabilities.close()
    await asyncio.wait_for(waiting, 5)
