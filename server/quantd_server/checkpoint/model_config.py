"""The ``config.json`` of an output: what describes the model, nothing of where it came from."""

from __future__ import annotations

import re
from typing import Any

_DROPPED = frozenset({"quantization_config", "compression_config", "name_or_path", "auto_map"})
_LOCAL_PATH = re.compile(r"(/|~|\\\\|\.\.?/|file:|[A-Za-z]:[\\/])")


def published_config(
    config: dict[str, Any], quantization_config: dict[str, Any] | None
) -> dict[str, Any]:
    """A copy of ``config`` fit to be published, with the given ``quantization_config``.

    Left out, at every depth: keys that begin with ``_``, the quantization of the source, and text
    that is a local path. Of ``auto_map``, only references to code on the hub
    (``owner/repo--module.Class``) stay: code files of the source are not carried over.
    """
    published = _cleaned(config)
    remote = _remote_code(config.get("auto_map"))
    if remote:
        published["auto_map"] = remote
    if quantization_config is not None:
        published["quantization_config"] = quantization_config
    return published


def _cleaned(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _cleaned_value(value)
        for key, value in config.items()
        if not key.startswith("_") and key not in _DROPPED and not _is_local_path(value)
    }


def _cleaned_value(value: Any) -> Any:
    if isinstance(value, dict):
        return _cleaned(value)
    if isinstance(value, list):
        return [_cleaned_value(element) for element in value if not _is_local_path(element)]
    return value


def _remote_code(auto_map: Any) -> dict[str, Any]:
    if not isinstance(auto_map, dict):
        return {}
    return {
        name: reference
        for name, reference in auto_map.items()
        if isinstance(reference, str) and "--" in reference and not _is_local_path(reference)
    }


def _is_local_path(value: Any) -> bool:
    return isinstance(value, str) and _LOCAL_PATH.match(value) is not None
