"""Tables of measurements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table

MEGABYTE = 1_000_000
WIDTH = 140


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    justify: Literal["left", "right"] = "right",
    notes: str = "",
) -> None:
    """Prints a table; the first column is text, the others are figures unless said otherwise.

    Args:
        title: Above it.
        columns: Headings.
        rows: Cells, as many as there are columns.
        justify: Of all columns but the first.
        notes: Below it: what was measured and how.
    """
    table = Table(box=None, padding=(0, 2, 0, 0))
    for number, heading in enumerate(columns):
        table.add_column(heading, justify=justify if number else "left", no_wrap=number == 0)
    for row in rows:
        table.add_row(*row)
    # Not cut to a narrow terminal, and the same in a file.
    console = Console(highlight=False, width=WIDTH)
    console.print(f"\n[bold]{title}[/bold]\n")
    console.print(table)
    if notes:
        console.print()
        console.print(notes, style="dim")
    console.print()


def ratio(value: float) -> str:
    """A ratio with three significant digits."""
    return f"{value:.3g}x"
