"""Limits of the control group this process runs in (Linux; elsewhere there are none)."""

from __future__ import annotations

from pathlib import Path

from quantd_server.host.system import read_text

UNLIMITED = 1 << 60
"""cgroup v1 says "no limit" with a number close to 2^63."""


def memory_limit(root: Path) -> int:
    """Smallest memory limit in bytes along the hierarchy of groups; 0 when there is none."""
    limits = [
        *_numbers(_files(root, "", "memory.max")),
        *_numbers(_files(root, "memory", "memory.limit_in_bytes")),
    ]
    return min((limit for limit in limits if 0 < limit < UNLIMITED), default=0)


def memory_left(root: Path) -> int | None:
    """Bytes that may still be taken below the tightest limit; None when there is none.

    Caches of files that were not used lately count as free: the kernel drops them first.
    """
    left = []
    for controller, limit_file, usage_file, cache in (
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        for file in _files(root, controller, limit_file):
            limit, usage = read_text(file), read_text(file.with_name(usage_file))
            if limit.isdecimal() and usage.isdecimal() and 0 < int(limit) < UNLIMITED:
                used = int(usage) - _entry(file.with_name("memory.stat"), cache)
                left.append(max(0, int(limit) - max(0, used)))
    return min(left, default=None)


def cpu_quota(root: Path) -> float | None:
    """Processors' worth of time that the group may use; None when there is no limit."""
    quotas = []
    for file in _files(root, "", "cpu.max"):
        quota, _, period = read_text(file).partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:
            quotas.append(int(quota) / int(period))
    for file in _files(root, "cpu", "cpu.cfs_quota_us"):
        quota, period = read_text(file), read_text(file.with_name("cpu.cfs_period_us"))
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:
            quotas.append(int(quota) / int(period))
    return min((quota for quota in quotas if quota > 0), default=None)


def memory_kills(root: Path) -> int | None:
    """How often the kernel killed in our group for lack of memory; None when it does not say."""
    for controller, name in (("", "memory.events"), ("memory", "memory.oom_control")):
        for file in _files(root, controller, name):
            if "oom_kill " in read_text(file):
                return _entry(file, "oom_kill")
    return None


def _files(root: Path, controller: str, name: str) -> list[Path]:
    """The file ``name`` of our group and of all groups above it.

    ``controller`` is "" for cgroup v2. In a container the path that /proc names may not exist; the
    mount point is then the group itself.
    """
    mount = root / "sys/fs/cgroup" / controller
    group = Path(_group_path(root, controller).lstrip("/"))
    return [mount / folder / name for folder in (group, *group.parents) if ".." not in folder.parts]


def _group_path(root: Path, controller: str) -> str:
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(",") and (controller or not controllers):
            return path
    return "/"


def _numbers(files: list[Path]) -> list[int]:
    return [int(text) for text in map(read_text, files) if text.isdecimal()]


def _entry(file: Path, name: str) -> int:
    """A number of a file with a name and a number a line; 0 without it."""
    for line in read_text(file).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return 0
