"""Names of the spec's enumeration values without their prefix: "Q4_K_M", "nf4", "cuda"."""

from __future__ import annotations

import difflib

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper


def prefix(enumeration: EnumDescriptor) -> str:
    """What every value of the enumeration starts with; the value 0 is always UNSPECIFIED."""
    return enumeration.values_by_number[0].name.removesuffix("UNSPECIFIED")


def names(enumeration: EnumTypeWrapper) -> list[str]:
    """Names that may be given, without their prefix and without UNSPECIFIED."""
    return _names(enumeration.DESCRIPTOR)


def name_of(enumeration: EnumTypeWrapper, number: int) -> str:
    """Name of a value without its prefix; a value newer than this package gives its number."""
    value = enumeration.DESCRIPTOR.values_by_number.get(number)
    return str(number) if value is None else value.name.removeprefix(prefix(enumeration.DESCRIPTOR))


def number_of(enumeration: EnumDescriptor, value: str | int, field: str) -> int:
    """Number of a value given by name, in any case and with or without its prefix, or by number.

    Args:
        enumeration: The enumeration.
        value: Name or number.
        field: What the value is for; named in the error.

    Raises:
        ValueError: There is no such value. The message lists those there are.
    """
    if isinstance(value, int):
        if value in enumeration.values_by_number:
            return value
    else:
        name = value.upper().replace("-", "_").removeprefix(prefix(enumeration))
        known = enumeration.values_by_name.get(prefix(enumeration) + name)
        if known is not None:
            return known.number
    allowed = _names(enumeration)
    similar = difflib.get_close_matches(str(value).upper(), allowed, n=1)
    hint = f"; did you mean {similar[0]}?" if similar else ""
    raise ValueError(f"{field}: {value!r} is not one of {', '.join(allowed)}{hint}")


def _names(enumeration: EnumDescriptor) -> list[str]:
    start = prefix(enumeration)
    return [value.name.removeprefix(start) for value in enumeration.values if value.number != 0]
