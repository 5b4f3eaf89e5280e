"""Files that a method's configuration names: a private server has to be allowed to read them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from quantd_server.cli.method_options import config_text, json_or_text, pair
from quantd_server.cli.paths import absolute

if TYPE_CHECKING:
    import quantd
    from quantd_server.cli.method_options import MethodOptions

FIELD_ENDING = "uri"
"""Of the names of all fields of the spec that hold one; "imatrix_uri", or "imatrixUri" in JSON."""


def named_files(options: MethodOptions) -> tuple[str, ...]:
    """URIs or absolute paths of the files that the options name, wherever they do.

    Raises:
        typer.BadParameter: --config or --set is not understood.
    """
    found = [options.imatrix] if options.imatrix else []
    for assignment in options.set or ():
        name, value = pair(assignment, "--set", "FIELD=VALUE")
        found += _uris({name: json_or_text(value)})
    if options.config is not None:
        found += _uris(json.loads(config_text(options.config)))
    return tuple(dict.fromkeys(map(absolute, found)))


def with_absolute_paths(method: quantd.MethodConfig) -> quantd.MethodConfig:
    """The same configuration, with relative paths as they are meant here, not at the server."""
    resolved = type(method)()
    resolved.CopyFrom(method)
    kind = resolved.WhichOneof("config")
    if kind is not None:
        config = getattr(resolved, kind)
        for field, value in config.ListFields():
            if field.name.endswith(FIELD_ENDING) and isinstance(value, str) and value:
                setattr(config, field.name, absolute(value))
    return resolved


def _uris(value: Any) -> Iterator[str]:
    """Texts under names that end like those of URIs, at any depth of a JSON value."""
    if isinstance(value, list):
        for item in value:
            yield from _uris(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if isinstance(item, str):
                if item and name.lower().endswith(FIELD_ENDING):
                    yield item
            else:
                yield from _uris(item)
