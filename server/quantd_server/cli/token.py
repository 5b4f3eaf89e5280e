"""`quantd token`: tokens for the file that `quantd serve --tokens` reads."""

from __future__ import annotations

import datetime as dt
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from quantd_server.cli.exit_codes import ends_with_exit_code

token = typer.Typer(no_args_is_help=True, help="Make tokens for the callers of a server.")

ROLES = ("read", "submit", "admin")


def new(
    *,
    name: Annotated[str, typer.Option("--name", help="Who gets it; it stands in logs.")],
    role: Annotated[
        str,
        typer.Option(
            "--role",
            metavar="ROLE",
            help="read: look at everything. submit: also quantize, and end its own jobs. "
            "admin: everything.",
        ),
    ],
    source_root: Annotated[
        list[Path] | None,
        typer.Option(
            "--source-root",
            metavar="FOLDER",
            help="Folder below a root of the server to read from, instead of all. Repeatable.",
        ),
    ] = None,
    output_root: Annotated[
        list[Path] | None,
        typer.Option(
            "--output-root",
            metavar="FOLDER",
            help="Folder below a root of the server to write to, instead of all. Repeatable.",
        ),
    ] = None,
    days: Annotated[
        int | None,
        typer.Option("--days", min=1, max=36_500, help="Days until it expires. Default: never."),
    ] = None,
) -> None:
    """Make a token: its entry goes to standard output, the token itself to standard error, once.

    quantd token new --name ci --role submit >> tokens.toml
    """
    from quantd_server.api.token_file import NAME_PATTERN, entries_in, new_token
    from quantd_server.errors import QuantdError

    if role not in ROLES:
        raise typer.BadParameter(f"--role is one of {', '.join(ROLES)}; got {role!r}")
    if not re.search(NAME_PATTERN, name):
        raise typer.BadParameter("--name has 1 to 64 letters, digits, and . _ @ - between them")
    made = new_token()
    entry = entry_of(
        made, name=name, role=role, sources=source_root, outputs=output_root, days=days
    )
    try:
        entries_in(entry.encode())
    except (QuantdError, UnicodeEncodeError) as error:
        raise typer.BadParameter(str(error)) from None
    print(entry, end="")
    print(f"The token, which is shown only now: {made}", file=sys.stderr)


def entry_of(
    token: str,
    *,
    name: str,
    role: str,
    sources: list[Path] | None,
    outputs: list[Path] | None,
    days: int | None,
) -> str:
    """The entry of a token, as TOML."""
    import hashlib

    lines = [
        "",
        "[[token]]",
        f'name = "{name}"',
        f'sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"',
        f'role = "{role}"',
    ]
    for key, folders in (("source_roots", sources), ("output_roots", outputs)):
        if folders:
            listed = ", ".join(_quoted(str(folder.absolute())) for folder in folders)
            lines.append(f"{key} = [{listed}]")
    if days is not None:
        end = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
        lines.append(f"expires = {end:%Y-%m-%dT%H:%M:%SZ}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A TOML basic string; a JSON string is one."""
    import json

    return json.dumps(text, ensure_ascii=False)


token.command("new")(ends_with_exit_code(new))
