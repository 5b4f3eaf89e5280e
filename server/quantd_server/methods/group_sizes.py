"""Which group sizes fit a set of weights, and what to say when the one asked for does not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quantd_server.errors import Finding, Severity
from quantd_server.methods.linear_weights import LinearWeight, finding


def divides(group_size: int, columns: int) -> bool:
    """Whether rows of ``columns`` weights fall into whole groups; -1 makes one group of a row."""
    return group_size == -1 or columns % group_size == 0


def undivided(
    misfits: Sequence[tuple[LinearWeight, int]],
    allowed: Iterable[int],
    field: str,
    leave_out: str,
) -> list[Finding]:
    """The finding about weights whose rows their group size does not divide.

    ``misfits`` pairs each of them with its group size, ``allowed`` are the sizes of the method,
    and ``leave_out`` says how a module is left unquantized.
    """
    if not misfits:
        return []
    columns = sorted({weight.columns for weight, _ in misfits})
    sizes = sorted({size for _, size in misfits})
    fitting = [
        size
        for size in sorted(allowed, reverse=True)
        if size > 0 and all(count % size == 0 for count in columns) and size < max(sizes)
    ]
    if fitting:
        advice = f"set group_size to {' or '.join(map(str, fitting[:3]))}, which fits all of them"
    else:
        advice = "set group_size to -1 for one scale a row"
    return [
        finding(
            Severity.ERROR,
            "GROUP_SIZE_DOES_NOT_DIVIDE",
            field,
            f"group_size {' and '.join(map(str, sizes))} does not divide the input dimension "
            f"({', '.join(map(str, columns[:4]))}) of {len(misfits)} weights",
            f"{advice}, or {leave_out}",
            [weight.entry.name for weight, _ in misfits],
            kind="invalid",
        )
    ]
