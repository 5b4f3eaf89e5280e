"""Options that several commands share, as dataclasses.

typer reads a command's options from its signature. A parameter whose type is a dataclass stands
for one option a field, so that a group is written once and a command receives it as one value.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any

import typer

AsJson = Annotated[
    bool,
    typer.Option(
        "--json", help="Print JSON for programs; events one a line.", rich_help_panel="Output"
    ),
]


def with_option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces each dataclass in the signature of `command` by its fields."""
    hints = typing.get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {
        name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)
    }
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name in groups:
            parameters += _options(groups[parameter.name])
        else:
            hint = hints[parameter.name]
            parameters.append(
                parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY)
            )

    @functools.wraps(command)
    def expanded(**given: Any) -> None:
        for name, group in groups.items():
            fields = [field.name for field in dataclasses.fields(group)]
            given[name] = group(**{field: given.pop(field) for field in fields})
        command(**given)

    del expanded.__wrapped__  # else typer reads the old signature
    expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    expanded.__annotations__ = {item.name: item.annotation for item in parameters}
    return expanded


def _options(group: Any) -> list[inspect.Parameter]:
    hints = typing.get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(group)
    ]


def option(*names: str, panel: str, help: str, **more: Any) -> Any:  # noqa: A002 - as typer has it
    """A typer option in a panel of the help."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)
