"""The process that asks torch: whatever happens to it, the answer is a value."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from quantd_server.host.torch_build import TorchBuild, ask_torch, bitsandbytes_devices
from quantd_server.host.torch_probe import MAX_BYTES, MAX_FAILURE, probe_torch


def python(program: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", program)


async def test_an_answer():
    program = """print('{"version":"9+cpu","built_for":["CPU"],"devices":["CPU"],"later":1}')"""
    build = await probe_torch(python(program))
    assert build == TorchBuild(version="9+cpu", built_for=("CPU",), devices=("CPU",))


@pytest.mark.parametrize(
    ("program", "failure"),
    [
        ("", "ended the process with status 0"),
        ("raise SystemExit(3)", "ended the process with status 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "with status -11"),
        ("print('Segmentation fault')", "not understood"),
        ("print('[1, 2')", "not understood"),
        ("""print('{"devices":["TOASTER"]}')""", "not understood"),
        ("import sys; sys.stdout.buffer.write(bytes(range(128, 256)))", "not understood"),
        (f"print('x' * {4 * MAX_BYTES})", "not understood"),
        (f"print('x' * {4 * MAX_BYTES}, end='')", "not understood"),
    ],
)
async def test_a_process_that_fails(program, failure):
    build = await probe_torch(python(program))
    assert failure in build.failure
    assert build == TorchBuild(failure=build.failure)


async def test_a_program_that_is_not_there(tmp_path):
    assert "cannot start" in (await probe_torch((str(tmp_path / "missing"),))).failure


async def test_a_failure_names_no_folder_and_is_short():
    failure = "ImportError: /opt/some where/venv/lib/libcudart.so.13: cannot open\\n" + "x" * 999
    program = f"""print('{{"failure":"{failure}"}}'.replace(chr(10), ' '))"""
    build = await probe_torch(python(program))
    assert "libcudart.so.13: cannot open" in build.failure
    assert "/opt" not in build.failure
    assert len(build.failure) <= MAX_FAILURE


async def test_a_process_that_does_not_end_is_ended(tmp_path):
    pid = tmp_path / "pid"
    program = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    begun = time.monotonic()
    build = await probe_torch(python(program), limit=1.0)
    assert "longer than 1 s" in build.failure
    assert time.monotonic() - begun < 20
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def wait_for_text(path: Path) -> None:
    end = time.monotonic() + 20
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < end
        time.sleep(0.02)


async def test_cancelling_ends_the_process(tmp_path):
    pid = tmp_path / "pid"
    program = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    task = asyncio.create_task(probe_torch(python(program)))
    await asyncio.to_thread(wait_for_text, pid)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def shadow_torch(folder: Path, text: str) -> dict[str, str]:
    """An environment in which ``import torch`` runs ``text``."""
    (folder / "torch.py").write_text(text)
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("raise ImportError('libcudart.so.13: cannot open shared object')", "ImportError: libc"),
        ("raise ModuleNotFoundError(\"No module named 'torch'\")", "ModuleNotFoundError: No mod"),
        ("version = None", "AttributeError: "),
        ("import os; os._exit(7)", "ended the process with status 7"),
        ("print('noise'); raise RuntimeError('x')", "RuntimeError: x"),
    ],
)
async def test_a_torch_that_is_broken(tmp_path, monkeypatch, text, failure):
    for name, value in shadow_torch(tmp_path, text).items():
        monkeypatch.setenv(name, value)
    assert failure in (await probe_torch()).failure


async def test_the_torch_that_is_installed():
    torch = pytest.importorskip("torch")
    build = await probe_torch()
    assert build.failure == ""
    assert build.version == torch.__version__
    assert build.cuda_version == (torch.version.cuda or "")
    assert build.devices[0] == "CPU"
    assert ("CUDA" in build.devices) == (torch.cuda.is_available() and not torch.version.hip)


def fake_torch(*, cuda=None, hip=None, xpu=None, gpu=False, xpus=False, mps=False):
    return SimpleNamespace(
        __version__="9.0",
        version=SimpleNamespace(cuda=cuda, hip=hip, xpu=xpu),
        cuda=SimpleNamespace(is_available=lambda: gpu, get_arch_list=lambda: ["sm_90"]),
        xpu=SimpleNamespace(is_available=lambda: xpus),
        backends=SimpleNamespace(
            mps=SimpleNamespace(is_built=lambda: mps, is_available=lambda: mps)
        ),
    )


@pytest.mark.parametrize(
    ("torch", "built", "devices"),
    [
        (fake_torch(), ("CPU",), ("CPU",)),
        (fake_torch(cuda="13.0"), ("CPU", "CUDA"), ("CPU",)),
        (fake_torch(cuda="13.0", gpu=True), ("CPU", "CUDA"), ("CPU", "CUDA")),
        (fake_torch(hip="7.1", gpu=True), ("CPU", "ROCM"), ("CPU", "ROCM")),
        (fake_torch(xpu="20250302", xpus=True), ("CPU", "XPU"), ("CPU", "XPU")),
        (fake_torch(mps=True), ("CPU", "MPS"), ("CPU", "MPS")),
    ],
)
def test_kinds_of_builds(torch, built, devices):
    build = ask_torch(torch)
    assert (build.built_for, build.devices) == (built, devices)


LIBRARIES = (
    "libbitsandbytes_cpu.so",
    "libbitsandbytes_cuda118.so",
    "libbitsandbytes_cuda130.so",
    "libbitsandbytes_rocm64.so",
    "libbitsandbytes_xpu2025.so",
)


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ({"cuda": "13.2"}, ("CUDA",)),
        ({"cuda": "11.6"}, ("CUDA",)),
        ({"cuda": "12.8"}, ()),
        ({"hip": "6.4.43482"}, ("ROCM",)),
        ({"hip": "7.1.25"}, ()),
        ({"xpu": True}, ("XPU",)),
        ({}, ()),
    ],
)
def test_code_of_bitsandbytes_that_fits(versions, expected):
    wanted = {"cuda": "", "hip": "", "xpu": False, **versions}
    assert bitsandbytes_devices(LIBRARIES, **wanted) == expected
    assert bitsandbytes_devices((), **wanted) == ()
