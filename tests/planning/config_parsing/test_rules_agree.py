"""The tables allow exactly what the rules of the spec allow, over every field and its edges."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import protovalidate
import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st
from tests.spec.test_rules import within_and_beyond

from quantd import v1
from quantd._third_party.buf.validate import validate_pb2
from quantd_server.api.translation import enum_name, to_message
from quantd_server.planning.config_parsing.parsing import parse_config
from quantd_server.planning.config_parsing.recognition import TABLES
from quantd_server.planning.config_parsing.rules import ValueRefusedError
from quantd_server.planning.config_parsing.table import Field, MethodTable

INTEGERS = (-2, -1, 0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128)


def descriptor_of(table: MethodTable) -> Any:
    return v1.MethodConfig.DESCRIPTOR.fields_by_name[table.name].message_type


def fields() -> Iterator[tuple[MethodTable, Field]]:
    for table in TABLES.values():
        for field in table.fields:
            yield table, field


def values(field: Any) -> list[Any]:
    """Values on both sides of every bound of a scalar field, as the message takes them."""
    if field.enum_type is not None:
        return [number for number in field.enum_type.values_by_number if number]
    if field.type == FieldDescriptor.TYPE_BOOL:
        return [False, True]
    if field.type == FieldDescriptor.TYPE_STRING:
        rules = field.GetOptions().Extensions[validate_pb2.field]
        if field.is_repeated:
            limits = rules.repeated
            longest = limits.items.string.max_len
            many = [str(n) for n in range(limits.max_items)]
            return [["a"], ["a", "b"], ["a", "a"], [""], ["a" * longest], ["a" * (longest + 1)]] + [
                many,
                [*many, "x"],
            ]
        return ["a", "", "a" * rules.string.max_len, "a" * (rules.string.max_len + 1)]
    rules = field.GetOptions().Extensions[validate_pb2.field]
    kind = rules.WhichOneof("type")
    within, beyond = within_and_beyond(getattr(rules, kind), is_double=kind == "double")
    if kind == "double":
        return [*within, *beyond, *map(float, INTEGERS)]
    lowest = -(2**31) if kind == "int32" else 0
    return [int(n) for n in {*within, *beyond, *INTEGERS} if n >= lowest]


def allowed_by_spec(table: MethodTable, name: str, value: Any) -> bool:
    message = v1.MethodConfig(**{table.name: {name: value}})
    return not any(
        name in [element.field_name for element in violation.proto.field.elements]
        for violation in protovalidate.collect_violations(message)
    )


def allowed_by_table(field: Field, value: Any) -> bool:
    try:
        field.rule.read(json.loads(json.dumps(value)))
    except ValueRefusedError:
        return False
    return True


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_every_field_of_the_spec_is_in_the_table(table: MethodTable):
    names = [field.name for field in table.fields]
    assert sorted(names) == sorted(descriptor_of(table).fields_by_name)
    assert set(names) == set(table.config.__struct_fields__)


@pytest.mark.parametrize(
    ("table", "field"), list(fields()), ids=lambda v: getattr(v, "name", str(v))
)
def test_a_field_allows_the_values_that_the_spec_allows(table: MethodTable, field: Field):
    descriptor = descriptor_of(table).fields_by_name[field.name]
    if descriptor.message_type is not None:
        names = {"dynamic": "pattern bits group_size sym desc_act exclude"}.get(field.name)
        rule = descriptor.message_type.fields_by_name
        assert set(rule) == set((names or "pattern type").split())
        return
    for value in values(descriptor):
        json_value = value
        if descriptor.enum_type is not None:
            json_value = field.rule.write(enum_name(descriptor.enum_type, value))
        spec, ours = (
            allowed_by_spec(table, field.name, value),
            allowed_by_table(field, json_value),
        )
        assert spec == ours, (value, spec, ours)


@pytest.mark.parametrize("name", ["bits", "group_size"])
def test_module_rules_allow_what_the_spec_allows(name: str):
    for value in values(v1.GptqModuleRule.DESCRIPTOR.fields_by_name[name]):
        message = v1.GptqModuleRule(pattern="a", **{name: value})
        text = json.dumps({"quant_method": "gptq", "dynamic": {"a": {name: value}}})
        errors = [f for f in parse_config(text).findings if f.severity == "ERROR"]
        assert bool(errors) == bool(protovalidate.collect_violations(message)), value


GRID = {
    "gptq": {
        "desc_act": (None, False, True),
        "act_group_aware": (None, False, True),
        "group_size": (None, -1, 128),
        "sym": (None, False, True),
        "checkpoint_format": (None, "gptq", "gptq_v2"),
    },
    "awq": {
        "zero_point": (None, False, True),
        "version": (None, "gemm", "gemv", "gemv_fast", "llm-awq"),
    },
}


@pytest.mark.parametrize("name", GRID)
def test_rules_between_fields_are_those_of_the_spec(name: str):
    table = TABLES[name]
    by_json_name = {field.names[0]: field for field in table.fields}
    for combination in itertools.product(*GRID[name].values()):
        config = {k: v for k, v in zip(GRID[name], combination, strict=True) if v is not None}
        typed = {by_json_name[k].name: by_json_name[k].rule.read(v) for k, v in config.items()}
        message = v1.MethodConfig()
        getattr(message, name).CopyFrom(
            to_message(table.config(**typed), getattr(v1, type(getattr(message, name)).__name__))
        )
        getattr(message, name).SetInParent()
        spec = {
            violation.proto.rule_id.upper().replace(".", "_")
            for violation in protovalidate.collect_violations(message)
        }
        findings = parse_config(json.dumps({"quant_method": name, **config})).findings
        ours = {finding.reason for finding in findings if finding.severity == "ERROR"}
        # Two rules about the same field are one finding: the first.
        assert ours <= spec, config
        assert bool(ours) == bool(spec), config


def _known_values(table: MethodTable) -> st.SearchStrategy[dict[str, Any]]:
    edges = st.sampled_from(
        [*INTEGERS, 0.5, -1.0, 1e300, True, False, None, "", "gptq", "gemm", "nf4", [], ["a"], {}]
    )
    return st.fixed_dictionaries(
        {"quant_method": st.just(table.quant_method), **{k: st.just(v) for k, v in table.markers}},
        optional={name: edges for field in table.fields for name in field.names if "." not in name},
    )


@given(st.sampled_from(list(TABLES.values())).flatmap(_known_values))
def test_what_is_typed_keeps_the_rules_of_the_spec(config: dict[str, Any]):
    parsed = parse_config(json.dumps(config))
    wrong = any(finding.severity == "ERROR" for finding in parsed.findings)
    assert (parsed.method is None) == wrong
    if parsed.method is not None:
        message = to_message(parsed.method, v1.MethodConfig)
        assert not protovalidate.collect_violations(message)
