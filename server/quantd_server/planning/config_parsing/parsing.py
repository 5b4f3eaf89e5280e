"""A `quantization_config` in, the typed configuration and everything that is odd about it out."""

from __future__ import annotations

import json

from quantd_server.errors import MAX_QUOTED, Finding, Severity
from quantd_server.host.packages import Package, describe_packages
from quantd_server.methods.configs import MethodConfig
from quantd_server.planning.config_parsing.json_text import (
    JsonObject,
    TooDeeplyNestedError,
    defects,
    read_object,
)
from quantd_server.planning.config_parsing.known_methods import KnownMethod
from quantd_server.planning.config_parsing.parsed import Notes, ParsedConfig
from quantd_server.planning.config_parsing.recognition import (
    SERVED_NAMES,
    TABLES,
    Block,
    locate,
    recognize,
)
from quantd_server.planning.config_parsing.table import MethodTable, read, write
from quantd_server.planning.load_requirements import LOAD_PATHS


def parse_config(text: str) -> ParsedConfig:
    """What the JSON in ``text`` means; see `ParseConfig` in the spec.

    Whatever is wrong with the configuration is a finding. Raises QuantdError CONFIG_NOT_JSON only
    when ``text`` is no JSON object.
    """
    notes = Notes()
    try:
        root = read_object(text)
    except TooDeeplyNestedError:
        notes.refuse(
            "config_json",
            "CONFIG_NESTED_TOO_DEEPLY",
            "the text nests lists and objects deeper than any configuration does",
            "send the quantization_config alone",
        )
        return ParsedConfig(status="UNKNOWN", findings=notes.findings())
    return _parse(root, notes)


def canonical_json(method: MethodConfig) -> str:
    """``method`` as a `quantization_config`: canonical names, the fields that are set, in the order
    of their names. Parsing it gives ``method`` again.

    Two things cannot be said there: an empty list in place of none, and a second GPTQ module rule
    with the pattern of another, which never matches.
    """
    # Sorted by the writer and not here: the patterns of `dynamic` keep their order.
    members = write(TABLES[method.name], method.value)
    return json.dumps(members, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _parse(root: JsonObject, notes: Notes) -> ParsedConfig:
    block = locate(root, notes)
    if block is None:
        status = "UNKNOWN" if notes.wrong else "NOT_QUANTIZED"
        return ParsedConfig(status=status, findings=notes.findings())  # type: ignore[arg-type]
    name, known = recognize(block, notes)
    if isinstance(known, KnownMethod):
        return _not_served(known, notes)
    if known is None and name not in SERVED_NAMES:
        return ParsedConfig(
            status="UNKNOWN", quant_method=_sayable(name), findings=notes.findings()
        )
    method, unknown = _typed(known, block, notes) if known else (None, ())
    return ParsedConfig(
        status="SERVED",
        quant_method=name,
        method=method,
        canonical_json=canonical_json(method) if method else "",
        unknown_fields=unknown,
        required_packages=_packages(known.name if known else f"{name}_4bit"),
        findings=notes.findings(),
    )


def _typed(
    table: MethodTable, block: Block, notes: Notes
) -> tuple[MethodConfig | None, tuple[str, ...]]:
    for defect in defects(block.members, block.path):
        place = defect.place
        notes.refuse(
            place, defect.reason, f"{place} {defect.message}", f"mend {place}, or remove it"
        )
    config, unknown = read(table, block.members, block.path, notes)
    return (MethodConfig.of(table.name, config) if config is not None else None), unknown


def _not_served(known: KnownMethod, notes: Notes) -> ParsedConfig:
    notes.add(
        Finding(
            severity=Severity.INFO,
            field="",
            reason="QUANT_METHOD_NOT_SERVED",
            message=f"{known.name} is known to {known.reader}; quantd neither makes nor reads it",
            remedy=f"to quantize, choose one of {', '.join(SERVED_NAMES)}",
            kind="unimplemented",
        )
    )
    return ParsedConfig(
        status="KNOWN",
        quant_method=known.name,
        required_packages=describe_packages(known.packages),
        findings=notes.findings(),
    )


def _packages(method: str) -> tuple[Package, ...]:
    """What transformers needs to load a checkpoint of one of the six methods."""
    path = next(path for path in LOAD_PATHS[method] if path.engine == "TRANSFORMERS")
    return describe_packages(tuple(path.packages))


def _sayable(text: str) -> str:
    """The start of a foreign name, without what UTF-8 cannot say."""
    return text[:MAX_QUOTED].encode("utf-8", "replace").decode()
