"""Reason codes: what the sources can say, what the registry explains, what the spec names."""

from __future__ import annotations

import itertools
import re
import textwrap
from pathlib import Path

import grpc
import protovalidate
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

import reason_page
import rule_reasons
from quantd import v1
from quantd._third_party.buf.validate import validate_pb2
from quantd_server.reasons import AREAS, REASONS
from raised_reasons import RaisedReasons, Use

SPEC = reason_page.REPOSITORY / "proto" / "quantd" / "v1"

# -- the registry and the page ---------------------------------------------------------------------


def test_page_is_what_code_and_registry_say():
    reason_page.check()


def test_every_reason_has_one_place_in_alphabetical_order():
    for area in AREAS:
        assert list(area.reasons) == sorted(area.reasons), area.title
    codes = list(itertools.chain.from_iterable(area.reasons for area in AREAS))
    assert sorted(codes) == sorted(set(codes))


def test_entries_are_sentences_for_a_table():
    for code, reason in REASONS.items():
        assert re.fullmatch(r"[A-Z][A-Z0-9_]{1,62}", code), code  # what ErrorInfo.reason may be
        for text in (reason.meaning, reason.action):
            assert text.endswith(".") and not set(text) & set("|\n"), code


def test_statuses_and_severities_of_a_row():
    use = Use(outcomes={("ERROR", "not_found"), ("INFO", "invalid"), ("WARNING", "internal")})
    assert reason_page.how_it_comes(use) == "ERROR (NOT_FOUND), WARNING, INFO"
    assert reason_page.how_it_comes(Use(is_requirement=True)) == "unmet requirement"


# -- reading sources -------------------------------------------------------------------------------

ERRORS = """
class Finding(Struct):
    severity: Severity = Severity.ERROR
    field: str
    reason: str
    kind: str = "invalid"

class QuantdError(Exception):
    def __init__(self, *, reason: str, kind: str = "invalid") -> None:
        self.finding = Finding(severity=Severity.ERROR, field="", reason=reason, kind=kind)

class CheckpointError(QuantdError):
    def __init__(self, *, reason: str, kind: str = "precondition") -> None:
        super().__init__(reason=reason, kind=kind)
"""
REQUIREMENTS = """
class UnmetRequirement(Struct):
    reason: str
"""


def read(folder: Path, source: str) -> RaisedReasons:
    """What is found in a server of one module ``planning/rules.py``."""
    (folder / "planning").mkdir()
    (folder / "errors.py").write_text(ERRORS)
    (folder / "planning" / "load_requirements.py").write_text(REQUIREMENTS)
    imports = (
        "from quantd_server.errors import CheckpointError, Finding, QuantdError\n"
        "from quantd_server.planning.load_requirements import UnmetRequirement\n"
    )
    (folder / "planning" / "rules.py").write_text(imports + textwrap.dedent(source))
    return RaisedReasons(folder, ["OF_A_RULE"])


@pytest.mark.parametrize(
    ("source", "outcomes"),
    [
        pytest.param('Finding(field="", reason="A")', {"A": {("ERROR", "invalid")}}, id="literal"),
        pytest.param(
            'Finding(Severity.INFO, "", "A", "not_found")',
            {"A": {("INFO", "not_found")}},
            id="positional",
        ),
        pytest.param(
            'raise CheckpointError(reason="A" if x else "B")',
            {"A": {("ERROR", "precondition")}, "B": {("ERROR", "precondition")}},
            id="one of two, with the default of a class that inherits",
        ),
        pytest.param(
            """
            def _unusable(reason, fault, kind="precondition"):
                return CheckpointError(reason=reason, kind=kind)

            def check():
                raise _unusable("A", f"{x} is odd")
                raise _unusable("B", "", kind="not_found")
            """,
            {"A": {("ERROR", "precondition")}, "B": {("ERROR", "not_found")}},
            id="helper",
        ),
        pytest.param(
            """
            class Notes:
                def note(self, severity, code): self.add(Finding(severity, "", code))
                def warn(self, field, code): self.note(Severity.WARNING, code)

            class Work(Notes):
                def run(self): self.warn("field", "A")

            def run(notes: Notes): notes.warn("field", "B")
            def run_unknown(x): x.notes.warn("field", "C")
            """,
            {code: {("WARNING", "invalid")} for code in "ABC"},
            id="methods",
        ),
        pytest.param(
            """
            class Rule(Struct):
                reason: str
                severity: Severity

            RULES: tuple[Rule, ...] = (Rule(reason="A", severity=Severity.INFO),)
            def rules() -> Iterator[Rule]: yield Rule("B", Severity.WARNING)

            def findings():
                for rule in RULES: yield Finding(rule.severity, "", rule.reason)
                for rule in rules(): yield Finding(rule.severity, "", rule.reason)
            """,
            {code: {("INFO", "invalid")} for code in "A"}
            | {code: {("WARNING", "invalid")} for code in "B"},
            id="fields",
        ),
        pytest.param(
            """
            class Refused(Exception):
                def __init__(self, reason): self.reason = reason

            def check():
                try: raise Refused("A")
                except Refused as refusal: raise Refused(refusal.reason)
                except Refused as refusal: raise QuantdError(reason=refusal.reason)
            """,
            {"A": {("ERROR", "invalid")}},
            id="exceptions",
        ),
        pytest.param(
            'raise QuantdError(reason=reason_of_rule(rule), kind="internal")',
            {"OF_A_RULE": {("ERROR", "internal")}},
            id="rules of the spec",
        ),
        pytest.param("raise error", {}, id="nothing"),
    ],
)
def test_reasons_are_found(source: str, outcomes: dict, tmp_path: Path):
    found = read(tmp_path, source)
    assert found.problems == []
    assert {code: use.outcomes for code, use in found.uses.items()} == outcomes


def test_requirements_are_found(tmp_path: Path):
    found = read(tmp_path, 'UnmetRequirement(reason="A")')
    assert {code: use.is_requirement for code, use in found.uses.items()} == {"A": True}


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ('Finding(field="", reason=f"{x}_MISSING")', "is computed"),
        ('Finding(field="", reason="A" + x)', "is computed"),
        ('Finding(field="", reason=CODES[x])', "is computed"),
        ("def f(x):\n    code = x.upper()\n    Finding(field='', reason=code)", "is computed"),
        ("def f(reason): raise QuantdError(reason=reason)\nf(f'{x}')", "is computed"),
        ("def f(rule): raise QuantdError(reason=rule.reason)", "type of rule"),
        ('raise QuantdError(reason="no code")', "UPPER_SNAKE"),
        ("raise QuantdError(**fault)", "by itself"),
        ('partial(QuantdError, reason="A")', "goes nowhere"),
        ('Finding(severity=of(x), field="", reason="A")', "severity of A is computed"),
        ('raise QuantdError(reason="A", kind=kinds[x])', "kind of A is computed"),
    ],
)
def test_what_no_page_could_list_is_a_problem(source: str, problem: str, tmp_path: Path):
    (said,) = read(tmp_path, source).problems
    assert said.startswith("planning/rules.py:") and problem in said


def test_complaints_say_what_is_missing(tmp_path: Path):
    found = read(tmp_path, 'raise QuantdError(reason="NEW")')
    missing, stale = reason_page.complaints(found, {"OLD"})
    assert (
        missing.startswith("planning/rules.py:3: NEW has no entry") and "make generate" in missing
    )
    assert stale.startswith("OLD: nothing gives this reason")


# -- the spec --------------------------------------------------------------------------------------


def odd_values(field: FieldDescriptor) -> list:
    """Values of a field that rules may not allow."""
    kinds = FieldDescriptor
    if field.cpp_type == kinds.CPPTYPE_STRING:
        return ["", "a", "A-", "a" * 10_000]
    if field.cpp_type == kinds.CPPTYPE_DOUBLE:
        return [-1.0, 0.0, 1e300, float("nan"), float("inf")]
    if field.cpp_type == kinds.CPPTYPE_BOOL:
        return [False, True]
    if field.cpp_type in {kinds.CPPTYPE_UINT32, kinds.CPPTYPE_UINT64}:
        return [0, 1, 5, 2**32 - 1]
    return [-1, 0, 1, 5, 99, 2**31 - 1]


def broken_rules() -> set[str]:
    """What the validator reports for odd values of every field that a request may hold."""
    seen: set[str] = set()
    for descriptor in rule_reasons.request_messages():
        make = GetMessageClass(descriptor)
        messages = [make()]
        for field in descriptor.fields:
            if field.message_type and field.message_type.GetOptions().map_entry:
                pairs = {str(number): "" for number in range(1_000)}
                messages += [make(**{field.name: some}) for some in (pairs, {"": "é" * 10_000})]
            elif field.message_type and field.is_repeated:
                item = GetMessageClass(field.message_type)()
                messages += [make(**{field.name: [item] * count}) for count in (2, 300)]
            elif field.is_repeated:
                lists = [[value] for value in odd_values(field)]
                lists += [odd_values(field)[:1] * 2, odd_values(field)[:1] * 2_000]
                messages += [make(**{field.name: value}) for value in lists]
            elif field.name == "config_json":
                messages.append(make(config_json="é" * 2**20))
            elif not field.message_type:
                messages += [make(**{field.name: value}) for value in odd_values(field)]
        for message in messages:
            seen |= {each.proto.rule_id for each in protovalidate.collect_violations(message)}
    return seen


def test_ids_of_rules_are_those_that_the_validator_reports():
    between_fields = {  # each is broken alone in tests/spec/test_rules.py
        rule.id
        for descriptor in rule_reasons.request_messages()
        for rule in descriptor.GetOptions().Extensions[validate_pb2.message].cel
    }
    assert broken_rules() | between_fields == rule_reasons.rule_ids()


COMMENTS = {
    path.name: " ".join(re.findall(r"//(.*)", path.read_text(encoding="utf-8")))
    for path in sorted(SPEC.glob("*.proto"))
}
STATUSES = {code.name for code in grpc.StatusCode}
ENUM_VALUES = {
    short
    for name in v1.__all__
    for value in getattr(getattr(getattr(v1, name), "DESCRIPTOR", None), "values", ())
    for short in itertools.accumulate(
        reversed(value.name.split("_")), lambda end, part: f"{part}_{end}"
    )
}
NO_REASONS = {"UPPER_SNAKE_CASE", "Q4_K"}


def test_reasons_that_comments_name_exist():
    named = {
        (file, word)
        for file, text in COMMENTS.items()
        for word in re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", text)
        if word not in STATUSES | ENUM_VALUES | NO_REASONS
    }
    assert len(named) > 20
    assert {(file, word) for file, word in named if word not in REASONS} == set()


def test_reasons_come_with_the_status_that_comments_name():
    uses = reason_page.raised().uses
    named = [
        found
        for text in COMMENTS.values()
        for found in re.findall(r"\b([A-Z_]+), reason ([A-Z_]+)", text)
    ]
    assert len(named) > 8
    for status, code in named:
        assert status in reason_page.how_it_comes(uses[code]), code
