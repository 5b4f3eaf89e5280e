"""What the host room reads from the system, on copies of the system's files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantd_server.host import cgroup, nvml
from quantd_server.host.cpu import Cpu, describe_cpu, usable_cores
from quantd_server.host.description import describe, refresh
from quantd_server.host.devices import cuda_devices, describe_devices
from quantd_server.host.memory import Memory, describe_memory
from quantd_server.host.packages import at_least, describe_packages, release

X86 = """processor : 0
model name : AMD EPYC
flags : fpu sse4_2 avx avx2 avx512f avx512_bf16 unknown_flag

processor : 1
model name : another
flags : none
"""
ARM = """processor : 0
BogoMIPS : 50.00
Features : fp asimd aes i8mm bf16
"""


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_an_x86_processor(tmp_path):
    cpu = describe_cpu(write(tmp_path, {"cpuinfo": X86}) / "cpuinfo")
    assert cpu.model == "AMD EPYC"
    assert cpu.features == ("sse4_2", "avx", "avx2", "avx512f", "avx512_bf16")
    assert cpu.usable_cores == usable_cores()


def test_an_arm_processor_has_neon_under_either_name(tmp_path):
    cpu = describe_cpu(write(tmp_path, {"cpuinfo": ARM}) / "cpuinfo")
    assert cpu.model
    assert cpu.features == ("neon", "asimd", "i8mm", "bf16")


def test_a_system_that_tells_nothing(tmp_path):
    cpu = describe_cpu(tmp_path / "missing")
    assert cpu.model
    assert cpu.features == ()
    memory = describe_memory(tmp_path / "missing", tmp_path)
    assert (
        memory.total == memory.available == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    )
    assert memory.limit == 0


def test_memory_in_bytes(tmp_path):
    text = "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\nHugePages_Total: 0\n"
    memory = describe_memory(write(tmp_path, {"meminfo": text}) / "meminfo", tmp_path)
    assert (memory.total, memory.available) == (1_024_000, 409_600)


def test_limits_of_cgroup_v2_hold_for_the_groups_above_too(tmp_path):
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/outer/inner\n",
            "sys/fs/cgroup/outer/memory.max": "1000000\n",
            "sys/fs/cgroup/outer/inner/memory.max": "max\n",
            "sys/fs/cgroup/outer/inner/cpu.max": "150000 100000\n",
        },
    )
    assert cgroup.memory_limit(root) == 1_000_000
    assert cgroup.cpu_quota(root) == 1.5
    assert usable_cores(root) == min(2, usable_cores(tmp_path / "none"))


def test_limits_of_cgroup_v1_in_a_container(tmp_path):
    root = write(
        tmp_path,
        {
            # The path of the host, which does not exist inside.
            "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "2000000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert cgroup.memory_limit(root) == 2_000_000
    assert cgroup.cpu_quota(root) == 0.5
    assert usable_cores(root) == 1


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"},
        {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1"},
        {
            "proc/self/cgroup": "garbage",
            "sys/fs/cgroup/cpu.max": "x y",
            "sys/fs/cgroup/memory.max": "",
        },
        {"proc/self/cgroup": "0::/../../outside\n"},
    ],
)
def test_no_limits(tmp_path, files):
    root = write(tmp_path, files)
    assert cgroup.memory_limit(root) == 0
    assert cgroup.cpu_quota(root) is None


def test_the_cpu_is_the_first_device(tmp_path):
    cpu, memory = describe_cpu(), describe_memory()
    first = describe_devices("Linux 6.12", cpu, memory)[0]
    assert (first.kind, first.index, first.name) == ("CPU", 0, cpu.model)
    assert 0 < first.memory_free_bytes <= first.memory_total_bytes


def test_the_gpu_of_an_apple_processor_shares_its_memory():
    cpu = Cpu(model="Apple M4", machine="arm64", usable_cores=10, features=("neon",))
    memory = Memory(total=24 << 30, available=20 << 30, limit=0)
    processor, gpu = describe_devices("Darwin 25.0", cpu, memory)
    assert (processor.kind, gpu.kind, gpu.index) == ("CPU", "MPS", 0)
    assert (gpu.memory_total_bytes, gpu.memory_free_bytes) == (24 << 30, 20 << 30)


def test_the_host_and_the_same_host_later():
    host = describe(("msgspec", "no-such-distribution"), ("sh", "no-such-program"))
    assert host.version_of("msgspec")
    assert host.version_of("no-such-distribution") == host.version_of("not-asked-for") == ""
    assert host.programs == ("sh",)
    assert host.devices_of("CPU") == host.devices[:1]
    later = refresh(host)
    assert (later.cpu, later.packages) == (host.cpu, host.packages)
    assert later.memory.total == host.memory.total


class FakeLibrary:
    """libnvidia-ml with two cards, of which the second has fallen off the bus."""

    def __init__(self, *, initialises: bool = True) -> None:
        self.initialises = initialises
        self.open = False

    def nvmlInit_v2(self):  # noqa: N802 - NVML's names
        self.open = self.initialises
        return 0 if self.initialises else 9

    def nvmlShutdown(self):  # noqa: N802
        self.open = False
        return 0

    def nvmlSystemGetDriverVersion(self, text, length):  # noqa: N802
        text.value = b"580.1"
        return 0

    def nvmlDeviceGetCount_v2(self, count):  # noqa: N802
        count._obj.value = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index, handle):  # noqa: N802
        handle._obj.value = 4096
        return 15 if index.value == 1 else 0

    def nvmlDeviceGetMemoryInfo(self, handle, info):  # noqa: N802
        assert handle.value == 4096
        info._obj.total, info._obj.free = 80 << 30, 70 << 30
        return 0

    def nvmlDeviceGetCudaComputeCapability(self, handle, major, minor):  # noqa: N802
        major._obj.value, minor._obj.value = 9, 0
        return 0

    def nvmlDeviceGetName(self, handle, text, length):  # noqa: N802
        text.value = b"NVIDIA H100"
        return 0


def test_cards_that_answer_are_listed(monkeypatch):
    library = FakeLibrary()
    monkeypatch.setattr(nvml, "load_library", lambda: library)
    (card,) = cuda_devices()
    assert (card.kind, card.index, card.name) == ("CUDA", 0, "NVIDIA H100")
    assert card.compute_capability == "9.0"
    assert (card.memory_total_bytes, card.memory_free_bytes) == (80 << 30, 70 << 30)
    assert card.driver_version == "580.1"
    assert not library.open


def test_no_driver_means_no_cards(monkeypatch):
    monkeypatch.setattr(nvml, "load_library", lambda: FakeLibrary(initialises=False))
    assert cuda_devices() == ()

    def missing():
        raise OSError("no such library")

    monkeypatch.setattr(nvml, "load_library", missing)
    assert cuda_devices() == ()


def test_packages_are_listed_installed_or_not():
    installed, absent = describe_packages(("msgspec", "no-such-distribution"))
    assert at_least(installed.version, "0.1")
    assert absent.version == ""


@pytest.mark.parametrize(
    ("version", "minimum", "enough"),
    [
        ("0.46.1", "0.46.1", True),
        ("0.50.2+cu130", "0.46.1", True),
        ("0.9", "0.46.1", False),
        ("1.24.0.dev1", "1.24", True),
        ("", "0", False),
    ],
)
def test_at_least(version, minimum, enough):
    assert at_least(version, minimum) is enough


@given(st.text(max_size=20))
def test_release_takes_any_text(text):
    assert all(part >= 0 for part in release(text))


def test_the_room_imports_nothing_heavy():
    program = (
        "import sys; import quantd_server.host.description; "
        "sys.exit(any(name in sys.modules for name in ('numpy', 'torch', 'pynvml', 'grpc')))"
    )
    path = os.pathsep.join(path for path in sys.path if path)
    subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}, check=True
    )
