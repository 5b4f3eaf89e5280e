"""Installed packages and their versions, read from their metadata and never imported."""

from __future__ import annotations

import re
from importlib import metadata

import msgspec


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution; field names are those of `Package` in the spec."""

    name: str
    version: str
    """Empty when it is not installed."""


def installed_version(name: str) -> str:
    """Version of the distribution ``name``; empty when it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def describe_packages(names: tuple[str, ...]) -> tuple[Package, ...]:
    """The packages ``names`` in that order, installed or not."""
    return tuple(Package(name=name, version=installed_version(name)) for name in names)


def release(version: str) -> tuple[int, ...]:
    """The numbers a version starts with: (0, 46, 1) of "0.46.1.post2+cu130".

    Enough to compare releases with; pre-releases count as the release they lead to.
    """
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def at_least(version: str, minimum: str) -> bool:
    """Whether an installed ``version`` (empty: not installed) is ``minimum`` or newer."""
    return bool(version) and release(version) >= release(minimum)
