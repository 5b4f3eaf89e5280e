"""What the host room reads from the system, on copies of the system's files."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.systems import linux, mac, write

from quantd_server.host import cgroup, system
from quantd_server.host.cpu import describe_cpu, usable_cores
from quantd_server.host.description import describe, refresh
from quantd_server.host.memory import Memory, describe_memory
from quantd_server.host.packages import at_least, describe_packages, release
from quantd_server.host.system import read_sysctl

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
CPU implementer : 0x41
CPU architecture: 8
CPU part : 0xd40
CPU revision : 1
"""


def test_an_x86_processor(tmp_path):
    cpu = describe_cpu(linux(tmp_path, {"proc/cpuinfo": X86}))
    assert (cpu.model, cpu.machine) == ("AMD EPYC", "x86_64")
    assert cpu.features == ("sse4_2", "avx", "avx2", "avx512f", "avx512_bf16")
    assert cpu.usable_cores == usable_cores()


def test_a_processor_with_everything(tmp_path):
    flags = (
        "avx2 avx512f avx512bw avx512dq avx512vl avx512_vnni avx512_bf16 avx512_fp16 avx_vnni "
        "amx_tile amx_int8 amx_bf16"
    )
    files = {"proc/cpuinfo": f"processor\t: 0\nmodel name\t: Xeon 8480\nflags\t\t: {flags}\n"}
    cpu = describe_cpu(linux(tmp_path, files))
    assert (cpu.model, set(cpu.features)) == ("Xeon 8480", set(flags.split()))


def test_an_arm_processor_has_neon_under_either_name(tmp_path):
    cpu = describe_cpu(linux(tmp_path / "64", {"proc/cpuinfo": ARM}))
    assert cpu.model == "Arm core 0xd40 revision 1"
    assert cpu.features == ("neon", "asimd", "i8mm", "bf16")
    text = "processor : 0\nmodel name : ARMv7 rev 3 (v7l)\nFeatures : half neon vfpv4\n"
    cpu = describe_cpu(linux(tmp_path / "32", {"proc/cpuinfo": text}))
    assert (cpu.model, cpu.features) == ("ARMv7 rev 3 (v7l)", ("neon",))


def test_a_mac_with_apple_silicon(tmp_path):
    apple = mac(
        tmp_path,
        {
            "machdep.cpu.brand_string": "Apple M4",
            "hw.optional.arm.FEAT_BF16": "1",
            "hw.optional.arm.FEAT_I8MM": "1",
            "hw.optional.arm.FEAT_DotProd": "1",
            "hw.optional.arm.FEAT_SME2": "0",
            "hw.memsize": str(24 << 30),
            "kern.memorystatus_level": "75",
        },
    )
    host = describe(system=apple)
    assert host.operating_system == "Darwin 25.0"
    assert host.cpu.model == "Apple M4"
    assert host.cpu.features == ("neon", "asimd", "asimddp", "i8mm", "bf16")
    assert host.memory == Memory(total=24 << 30, available=18 << 30, limit=0)
    processor, gpu = host.devices
    assert (processor.kind, gpu.kind, gpu.index, gpu.name) == ("CPU", "MPS", 0, "Apple M4")
    assert (gpu.memory_total_bytes, gpu.memory_free_bytes) == (24 << 30, 18 << 30)


def test_a_mac_with_an_intel_processor(tmp_path):
    system = mac(
        tmp_path,
        {
            "machdep.cpu.brand_string": "Intel(R) Core(TM) i9",
            "machdep.cpu.features": "FPU SSE4.2 FMA AVX1.0 F16C",
            "machdep.cpu.leaf7_features": "SMEP AVX2 AVX512F",
        },
        machine="x86_64",
    )
    host = describe(system=system)
    assert host.cpu.features == ("sse4_2", "avx", "f16c", "fma", "avx2", "avx512f")
    assert [device.kind for device in host.devices] == ["CPU"]
    assert host.memory.available == host.memory.total == physical_memory()


def physical_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_sysctl_answers_what_it_knows(tmp_path, monkeypatch):
    program = tmp_path / "sysctl"
    program.write_text('#!/bin/sh\necho "$1: 42"\necho "unknown name" >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setattr(system, "SYSCTL", str(program))
    assert read_sysctl(["hw.memsize", "unknown"]) == {"hw.memsize": "42"}
    monkeypatch.setattr(system, "SYSCTL", str(tmp_path / "missing"))
    assert read_sysctl(["hw.memsize"]) == {}


def test_a_system_that_tells_nothing(tmp_path):
    system = linux(tmp_path)
    cpu = describe_cpu(system)
    assert cpu.model
    assert cpu.features == ()
    memory = describe_memory(system)
    assert memory.total == memory.available == physical_memory()
    assert memory.limit == 0


def test_memory_in_bytes(tmp_path):
    text = "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\nHugePages_Total: 0\n"
    memory = describe_memory(linux(tmp_path, {"proc/meminfo": text}))
    assert (memory.total, memory.available) == (1_024_000, 409_600)


GROUP = "sys/fs/cgroup"


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, None),
        ({f"{GROUP}/memory.max": "max", f"{GROUP}/memory.current": "5"}, None),
        ({f"{GROUP}/memory.max": "1000"}, None),
        ({f"{GROUP}/memory.max": "1000", f"{GROUP}/memory.current": "900"}, 100),
        (
            {
                f"{GROUP}/memory.max": "1000",
                f"{GROUP}/memory.current": "900",
                f"{GROUP}/memory.stat": "anon 600\ninactive_file 250\n",
            },
            350,
        ),
        ({f"{GROUP}/memory.max": "1000", f"{GROUP}/memory.current": "1200"}, 0),
        (
            {
                "proc/self/cgroup": "0::/outer/inner\n",
                f"{GROUP}/outer/memory.max": "1000",
                f"{GROUP}/outer/memory.current": "950",
                f"{GROUP}/outer/inner/memory.max": "500",
                f"{GROUP}/outer/inner/memory.current": "100",
            },
            50,
        ),
        (
            {
                f"{GROUP}/memory/memory.limit_in_bytes": "1000",
                f"{GROUP}/memory/memory.usage_in_bytes": "800",
                f"{GROUP}/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 300\n",
            },
            500,
        ),
    ],
)
def test_what_a_group_has_left(tmp_path, files, left):
    machine = linux(tmp_path, {"proc/meminfo": "MemTotal: 4 kB\nMemAvailable: 3 kB\n", **files})
    assert cgroup.memory_left(tmp_path) == left
    assert describe_memory(machine).available == (3072 if left is None else min(3072, left))


@pytest.mark.parametrize(
    ("files", "kills"),
    [
        ({}, None),
        ({f"{GROUP}/memory.events": "low 0\nhigh 0\nmax 9\noom 2\noom_kill 3\n"}, 3),
        (
            {
                "proc/self/cgroup": "0::/inner\n",
                f"{GROUP}/memory.events": "oom_kill 7\n",
                f"{GROUP}/inner/memory.events": "oom_kill 1\n",
            },
            1,
        ),
        (
            {f"{GROUP}/memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"},
            4,
        ),
        # Kernels before 4.13 do not count them.
        ({f"{GROUP}/memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n"}, None),
    ],
)
def test_how_often_the_kernel_killed_for_memory(tmp_path, files, kills):
    linux(tmp_path, files)
    assert cgroup.memory_kills(tmp_path) == kills


def test_a_limit_bounds_what_the_processor_has(tmp_path):
    files = {
        "proc/meminfo": "MemTotal: 4000 kB\nMemAvailable: 3000 kB\n",
        "sys/fs/cgroup/memory.max": "2048000",
    }
    host = describe(system=linux(tmp_path, files))
    assert host.memory.limit == 2_048_000
    (processor,) = host.devices
    assert processor.memory_total_bytes == processor.memory_free_bytes == 2_048_000


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


def test_the_cpu_is_the_first_device():
    host = describe()
    first = host.devices[0]
    assert (first.kind, first.index, first.name) == ("CPU", 0, host.cpu.model)
    assert 0 < first.memory_free_bytes <= first.memory_total_bytes


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


def test_cards_that_answer_are_listed(tmp_path):
    library = FakeLibrary()
    (card,) = describe(system=linux(tmp_path, nvml=library)).devices_of("CUDA")
    assert (card.kind, card.index, card.name) == ("CUDA", 0, "NVIDIA H100")
    assert card.compute_capability == "9.0"
    assert (card.memory_total_bytes, card.memory_free_bytes) == (80 << 30, 70 << 30)
    assert card.driver_version == "580.1"
    assert not library.open


def test_no_driver_means_no_cards(tmp_path):
    for machine in (linux(tmp_path), linux(tmp_path, nvml=FakeLibrary(initialises=False))):
        assert [device.kind for device in describe(system=machine).devices] == ["CPU"]


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
