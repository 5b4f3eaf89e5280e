"""Numbers as people read them."""

from __future__ import annotations

UNITS = ("B", "kB", "MB", "GB", "TB")


def size(count: float) -> str:
    """Bytes in decimal units, as file managers and Hugging Face show them: "269 MB"."""
    power = 0
    while count >= 999.5 and power < len(UNITS) - 1:
        count /= 1000
        power += 1
    digits = 0 if power == 0 or count >= 100 else 1 if count >= 10 else 2
    return f"{count:.{digits}f} {UNITS[power]}"


def duration(seconds: float) -> str:
    """Time such as "3.2 s", "4 min 05 s", "2 h 10 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min"


def count(number: int, noun: str) -> str:
    """A number with its noun: "1 tensor", "1,024 tensors"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def percent(fraction: float) -> str:
    """A fraction with three significant digits: "5.13 %"."""
    return f"{100 * fraction:.3g} %"


def shape(dimensions: list[int]) -> str:
    """A shape such as "576 × 1536"."""
    return " × ".join(str(dimension) for dimension in dimensions)
