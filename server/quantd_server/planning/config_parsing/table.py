"""A method's `quantization_config` as a table, and the one reader and writer of all of them.

A table names every field that is understood, and every field that is left out on purpose, with the
reason. Whatever is in neither is unknown, and a configuration with unknown fields is refused: a
setting must never be ignored in silence.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from quantd_server.errors import Finding, Severity
from quantd_server.methods.base import subjects_of
from quantd_server.methods.configs import AnyConfig
from quantd_server.planning.config_parsing.json_text import below, child
from quantd_server.planning.config_parsing.parsed import MAX_FINDINGS, Notes
from quantd_server.planning.config_parsing.rules import (
    Anything,
    Check,
    Rule,
    ValueRefusedError,
    shown,
)

READER = "a reader's choice of kernel or device"
WRITER = "how the writer worked, not what it made"
CALIBRATION = "calibration data or tokenizer, which is never repeated"
PROVENANCE = "where the checkpoint came from"
OTHER_METHOD = "belongs to another method and has no effect"
IDENTITY = "names the method"


_ANYTHING = Anything()


@dataclass(frozen=True)
class Field:
    """A field of the typed configuration."""

    name: str
    """In the domain; also the canonical name in JSON unless ``json_name`` says otherwise."""
    rule: Rule
    spellings: tuple[str, ...] = ()
    """Other names in JSON, also below an object ("meta.mse"); read, never written."""
    json_name: str = ""
    needed_by: str = ""
    """Readers that refuse a checkpoint without it."""

    @property
    def names(self) -> tuple[str, ...]:
        """All names in JSON, the canonical one first."""
        return (self.json_name or self.name, *self.spellings)


@dataclass(frozen=True)
class Ignored:
    """Fields that are known and left out of the typed configuration."""

    names: tuple[str, ...]
    why: str
    rule: Check = _ANYTHING
    """What their values may be."""
    matters: bool = False
    """Whether leaving it out loses a part of the meaning; told as a WARNING if it is set."""


@dataclass(frozen=True)
class Breach:
    """A rule between fields that is broken."""

    name: str
    """The field to change."""
    reason: str
    message: str
    remedy: str
    severity: Severity = Severity.ERROR


@dataclass(frozen=True)
class MethodTable:
    """All that is known about one method's configuration."""

    name: str
    """Field of `MethodConfig`."""
    quant_method: str
    config: type[AnyConfig]
    fields: tuple[Field, ...]
    ignored: tuple[Ignored, ...] = ()
    markers: tuple[tuple[str, Any], ...] = ()
    """What canonical JSON has besides the fields and quant_method."""
    check: Callable[[Mapping[str, Any]], Iterable[Breach]] = lambda _: ()
    """Rules between fields, given the domain values that are set."""


def read(
    table: MethodTable, block: Mapping[str, Any], path: str, notes: Notes
) -> tuple[AnyConfig | None, tuple[str, ...]]:
    """The typed configuration in ``block``, None if an ERROR was noted, and the unknown fields."""
    values: dict[str, Any] = {}
    said_at: dict[str, str] = {}
    for field in table.fields:
        _read_field(field, block, path, notes, values, said_at)
    _read_ignored(table, block, path, notes)
    unknown = _unknown(table, block, path, notes)
    for breach in table.check(values):
        notes.add(_breach_finding(breach, said_at.get(breach.name) or child(path, breach.name)))
    _note_needed(table, values, path, notes)
    return (None if notes.wrong else table.config(**values)), unknown


def _breach_finding(breach: Breach, place: str) -> Finding:
    return Finding(
        severity=breach.severity,
        field=place,
        reason=breach.reason,
        message=breach.message,
        remedy=breach.remedy,
    )


def write(table: MethodTable, config: AnyConfig) -> dict[str, Any]:
    """The canonical `quantization_config`: the fields that are set, under their canonical names."""
    members: dict[str, Any] = {"quant_method": table.quant_method, **dict(table.markers)}
    for field in table.fields:
        value = getattr(config, field.name)
        if value is not None and value != ():
            members[field.names[0]] = field.rule.write(value)
    return dict(sorted(members.items()))


def _read_field(
    field: Field,
    block: Mapping[str, Any],
    path: str,
    notes: Notes,
    values: dict[str, Any],
    said_at: dict[str, str],
) -> None:
    for name in field.names:
        raw = _get(block, name)
        if raw is None:  # transformers writes null for what is not set
            continue
        place = _place(path, name)
        try:
            value = field.rule.read(raw)
        except ValueRefusedError as refusal:
            _refuse(refusal, place, field.rule, notes)
            continue
        if field.name not in values:
            values[field.name], said_at[field.name] = value, place
        elif values[field.name] != value:
            notes.refuse(
                place,
                "CONFIG_CONTRADICTION",
                f"{place} is {shown(raw)}, but {said_at[field.name]}, which means the same, "
                "says otherwise",
                "remove one of the two",
            )


def _refuse(refusal: ValueRefusedError, place: str, rule: Check, notes: Notes) -> None:
    at = below(place, refusal.place)
    notes.refuse(
        at,
        refusal.reason,
        f"{at} is {refusal.message}",
        f"remove {place}, or set it to {rule.allowed}",
    )


def _read_ignored(table: MethodTable, block: Mapping[str, Any], path: str, notes: Notes) -> None:
    reasons: dict[str, None] = {}
    places: list[str] = []
    for ignored in table.ignored:
        for name in ignored.names:
            raw = block.get(name)
            if raw is None:
                continue
            place = child(path, name)
            try:
                ignored.rule.read(raw)
            except ValueRefusedError as refusal:
                _refuse(refusal, place, ignored.rule, notes)
                continue
            if ignored.matters and raw:
                notes.add(
                    Finding(
                        severity=Severity.WARNING,
                        field=place,
                        reason="CONFIG_FIELD_NOT_CARRIED",
                        message=f"{place} is understood, but the typed configuration has no field "
                        f"for it: {ignored.why}",
                        remedy="do not expect it to be applied again",
                    )
                )
            elif ignored.why != IDENTITY:
                reasons[ignored.why] = None
                places.append(place)
    if places:
        subjects, count = subjects_of(places)
        notes.add(
            Finding(
                severity=Severity.INFO,
                field=path,
                reason="CONFIG_FIELDS_IGNORED",
                message="known, but not part of the typed configuration: " + "; ".join(reasons),
                remedy="",
                subjects=subjects,
                subject_count=count,
            )
        )


def _unknown(
    table: MethodTable, block: Mapping[str, Any], path: str, notes: Notes
) -> tuple[str, ...]:
    known = {"quant_method"}
    known |= {name.partition(".")[0] for field in table.fields for name in field.names}
    known |= {name for ignored in table.ignored for name in ignored.names}
    unknown = [key for key in block if key not in known]
    for key in unknown[:MAX_FINDINGS]:
        place = child(path, key)
        close = difflib.get_close_matches(key[:64], sorted(known), n=1, cutoff=0.8)
        notes.refuse(
            place,
            "UNKNOWN_FIELDS",
            f"{place} is no field of {table.quant_method} that quantd knows"
            + (f"; did you mean {close[0]}?" if close else ""),
            f"call it {close[0]}, or remove it" if close else "remove it",
        )
    return tuple(child(path, key) for key in unknown)


def _note_needed(table: MethodTable, values: Mapping[str, Any], path: str, notes: Notes) -> None:
    missing = [field for field in table.fields if field.needed_by and field.name not in values]
    if missing:
        names = [field.names[0] for field in missing]
        notes.add(
            Finding(
                severity=Severity.INFO,
                field=child(path, names[0]),
                reason="CONFIG_FIELD_MISSING",
                message=f"{', '.join(names)} not said; {missing[0].needed_by} load no checkpoint "
                "without",
                remedy="say it in the config.json of a checkpoint; to quantize, the default holds",
            )
        )


def _get(block: Mapping[str, Any], name: str) -> Any:
    first, _, rest = name.partition(".")
    value = block.get(first)
    if not rest:
        return value
    return value.get(rest) if isinstance(value, dict) else None


def _place(path: str, name: str) -> str:
    for part in name.split("."):
        path = child(path, part)
    return path
